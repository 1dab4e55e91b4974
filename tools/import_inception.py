"""Fetches the weights that FID is defined by: python -m tools.import_inception

It downloads the file of pytorch-fid, pt_inception-2015-12-05-6726825d.pth, or takes the local copy
--from, checks that it is the published one, and puts it into the cache, $ATELIER_CACHE/features,
where the extractor `inception` reads it. Nothing in the file is run.
"""

import sys

from absl import flags

from commands import cli


def main() -> None:
  # Imported here because it imports jax, which must come after `cli.launch` set up the process.
  from commands.import_inception import import_inception

  import_inception(flags.FLAGS['from'].value)


if __name__ == '__main__':
  flags.DEFINE_string('from', '', 'A local copy of the file; it is downloaded if not given.')
  cli.launch(main, sys.argv)
