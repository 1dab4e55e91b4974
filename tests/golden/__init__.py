"""Values that training gave when they were recorded, and the tool that records them anew."""
