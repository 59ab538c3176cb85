"""`python -m nucseg_pipeline`, also as `accelerate launch -m nucseg_pipeline train ...` on several devices."""

from nucseg_pipeline.cli import app

app(prog_name="nucseg")
