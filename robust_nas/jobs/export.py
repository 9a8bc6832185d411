"""An export as a job: from a model folder to files that run elsewhere."""

from __future__ import annotations

from pathlib import Path


def export(model_folder: Path, out: Path | None = None, *, overwrite: bool = False) -> Path:
    """Writes the model as plain Python with torch alone (`network.py`, `weights.pt`); returns the folder."""
    from robust_nas.exporting import export_source
    from robust_nas.nets import read_model

    model_folder = Path(model_folder)
    folder = Path(out) if out else model_folder / "export"
    export_source(read_model(model_folder), folder, overwrite=overwrite)
    return folder
