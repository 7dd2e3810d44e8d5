"""The command line `unix`: each command checks its options, runs one job, prints the job's summary.

Jobs are imported when their command runs, so that `unix --help` stays quick.
"""

from unix.cli import curation, learning
from unix.cli.frame import app, main, run

for command in (curation.phantom, curation.ingest, curation.clean, curation.label, curation.splits):
    app.command()(command)
app.add_typer(curation.shards, name="shards")
for command in (learning.train, learning.describe, learning.generate, learning.evaluate):
    app.command()(command)

__all__ = ["app", "main", "run"]
