"""Nuclei as lines of a table and as features of GeoJSON, written one by one: a million of them take no memory."""

from __future__ import annotations

import csv
import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TextIO

from nucseg_pipeline.predict.nuclei import Nucleus

COLOUR = (240, 228, 66)
"""Of the class Nucleus in QuPath: seen on H&E with any kind of colour vision."""

_NAMESPACE = uuid.UUID("b0a7e3a1-5d0f-5f3c-9a5e-6e7563736567")
_DIGITS = 4


def columns(nucleus: Nucleus, mpp: float | None) -> dict[str, float]:
    """What is measured of a nucleus by name, units in the names; microns only where the resolution is known."""
    it = nucleus.measurements
    values = {"centroid_x_px": it.centroid_x, "centroid_y_px": it.centroid_y, "area_px2": it.area}
    values["perimeter_px"] = it.perimeter
    if mpp is not None:
        values |= {"centroid_x_um": it.centroid_x * mpp, "centroid_y_um": it.centroid_y * mpp}
        values |= {"area_um2": it.area * mpp**2, "perimeter_um": it.perimeter * mpp}
    values |= {"eccentricity": it.eccentricity, "probability_mean": it.probability_mean}
    values |= {"hematoxylin_od_mean": it.hematoxylin_od_mean, "eosin_od_mean": it.eosin_od_mean}
    return {name: round(value, _DIGITS) for name, value in values.items()}


class Tables:
    """nuclei.csv and nuclei.geojson, for the time that nuclei come in."""

    def __init__(self, folder: Path, image_digest: str, mpp: float | None) -> None:
        """Begin both files in a folder."""
        self._image, self._mpp = image_digest, mpp
        self._csv: TextIO = (folder / "nuclei.csv").open("w", newline="")
        self._geojson: TextIO = (folder / "nuclei.geojson").open("w")
        self._writer = csv.writer(self._csv, lineterminator="\n")
        self.n_nuclei = 0
        self.area_px2 = 0.0

    def __enter__(self) -> Tables:
        self._geojson.write('{"type":"FeatureCollection","features":[')
        return self

    def add(self, nuclei: Sequence[tuple[int, Nucleus]]) -> None:
        """Write nuclei with their numbers."""
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
            "id": str(uuid.uuid5(_NAMESPACE, f"{self._image}/{number}")),  # QuPath reads nothing else
            "geometry": {"type": "Polygon", "coordinates": nucleus.rings},
            "properties": {
                "objectType": "detection",
                "name": str(number),
                "classification": {"name": "Nucleus", "color": list(COLOUR)},
                "measurements": {"id": number, **values},
            },
        }
        return json.dumps(feature, separators=(",", ":"))
