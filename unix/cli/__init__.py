"""The command line `unix`: each command checks its options, runs one job, prints the job's summary.

Jobs are imported when their command runs, so that `unix --help` stays quick.
"""

from unix.cli import ablation, cleaning, curation, demo, learning, measuring, planning, registry, serving
from unix.cli.frame import app, main, run

for command in (
    demo.demo,
    curation.phantom,
    curation.ingest,
    cleaning.endpoint,
    cleaning.guard,
    cleaning.label,
    curation.splits,
    curation.watch,
    curation.drift,
    learning.train,
    learning.describe,
    learning.generate,
    learning.parity,
    learning.convert,
    planning.plan,
    planning.doctor,
    planning.runs,
    registry.lineage,
    serving.serve,
):
    app.command()(command)
app.add_typer(cleaning.clean, name="clean")
app.add_typer(curation.shards, name="shards")
app.add_typer(curation.export, name="export")
app.add_typer(registry.models, name="models")
app.add_typer(measuring.evaluate, name="evaluate")
app.add_typer(ablation.ablate, name="ablate")

__all__ = ["app", "main", "run"]
