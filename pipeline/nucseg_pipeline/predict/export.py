"""Write nuclei to a table and to GeoJSON one at a time, so that memory does not grow with their number."""

from __future__ import annotations

import csv
import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TextIO

from nucseg.data.slides import Mpp
from nucseg_pipeline.predict.nuclei import Nucleus

COLOUR = (240, 228, 66)
"""Colour of the class Nucleus in QuPath; visible on H&E with any kind of colour vision."""

_NAMESPACE = uuid.UUID("b0a7e3a1-5d0f-5f3c-9a5e-6e7563736567")
_DIGITS = 4


def columns(nucleus: Nucleus, mpp: Mpp | None) -> dict[str, float]:
    """The measurements of a nucleus by name, with units in the names; in microns only if the resolution is known."""
    m = nucleus.measurements
    values = {"centroid_x_px": m.centroid_x, "centroid_y_px": m.centroid_y, "area_px2": m.area}
    values["perimeter_px"] = m.perimeter
    if mpp is not None and m.perimeter_um is not None:
        values |= {"centroid_x_um": m.centroid_x * mpp[1], "centroid_y_um": m.centroid_y * mpp[0]}
        values |= {"area_um2": m.area * mpp[0] * mpp[1], "perimeter_um": m.perimeter_um}
    values |= {"eccentricity": m.eccentricity, "probability_mean": m.probability_mean}
    values |= {"hematoxylin_od_mean": m.hematoxylin_od_mean, "eosin_od_mean": m.eosin_od_mean}
    return {name: round(value, _DIGITS) for name, value in values.items()}


class NucleusTables:
    """Writes nuclei.csv and nuclei.geojson while nuclei are found; a context manager."""

    def __init__(self, folder: Path, image_digest: str, mpp: Mpp | None) -> None:
        """Open both files in a folder."""
        self._image, self._mpp = image_digest, mpp
        self._csv: TextIO = (folder / "nuclei.csv").open("w", newline="")
        self._geojson: TextIO = (folder / "nuclei.geojson").open("w")
        self._writer = csv.writer(self._csv, lineterminator="\n")
        self.n_nuclei, self.area_px2 = 0, 0.0

    def __enter__(self) -> NucleusTables:
        self._geojson.write('{"type":"FeatureCollection","features":[')
        return self

    def add(self, nuclei: Sequence[tuple[int, Nucleus]]) -> None:
        """Append nuclei with their numbers."""
        for number, nucleus in nuclei:
            values = columns(nucleus, self._mpp)
            if not self.n_nuclei:
                self._writer.writerow(["id", *values])
            self._writer.writerow([number, *values.values()])
            self._geojson.write((",\n" if self.n_nuclei else "\n") + self._feature(number, nucleus, values))
            self.n_nuclei += 1
            self.area_px2 += nucleus.measurements.area

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if kind is None and not self.n_nuclei:
                self._csv.write("id\n")
            if kind is None:
                self._geojson.write("\n]}\n")
        finally:
            self._csv.close()
            self._geojson.close()

    def _feature(self, number: int, nucleus: Nucleus, values: Mapping[str, float]) -> str:
        feature = {
            "type": "Feature",
            "id": str(uuid.uuid5(_NAMESPACE, f"{self._image}/{number}")),  # QuPath accepts only UUIDs
            "geometry": {"type": "Polygon", "coordinates": nucleus.rings},
            "properties": {
                "objectType": "detection",
                "name": str(number),
                "classification": {"name": "Nucleus", "color": list(COLOUR)},
                "measurements": {"id": number, **values},
            },
        }
        return json.dumps(feature, separators=(",", ":"))
