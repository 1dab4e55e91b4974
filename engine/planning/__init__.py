"""What a run would need and cost on devices that may not be here."""
