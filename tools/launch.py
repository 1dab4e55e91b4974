"""Starts several processes of one job on this machine, each with its own devices:

python -m tools.launch --processes=4 -- train.py --config=configs/gan.py

The GPUs are shared out evenly; without any, each process has one CPU device. Every line of output
begins with the number of its process. When one process fails the others stop, and the exit code is
that of the first that failed. Ctrl-C and SIGTERM reach all of them: each saves the same step.
docs/run_on_many_hosts.md has other ways to start a job.
"""

import sys
from collections.abc import Sequence

from absl import flags

from commands import cli
from commands.launch_processes import PROCESSES, launch_processes


def main(words: Sequence[str]) -> None:
  sys.exit(launch_processes(words, flags.FLAGS.processes))


if __name__ == '__main__':
  flags.DEFINE_integer('processes', PROCESSES.default, PROCESSES.doc)
  cli.launch(main, sys.argv, takes_words=True)
