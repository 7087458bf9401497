"""Turn a trained metric into the bundled file: ``python tools/bundle_weights.py RUN/leiq``.

Writes ``lowlight_iqa/weights/NAME.safetensors`` in float16 and prints the SHA-256 that belongs into the card.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import lowlight_iqa
from lowlight_iqa.weights.files import BUNDLED, serialize


def main() -> None:
    """Convert the directory given."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python tools/bundle_weights.py DIRECTORY_OF_A_METRIC")
    directory = Path(sys.argv[1])
    metric = lowlight_iqa.create_metric(directory.name, weights=directory)
    tensors = {key: value.half() for key, value in metric.state_dict().items()}
    if not all(value.isfinite().all() for value in tensors.values()):
        raise SystemExit("a weight is beyond float16's range; nothing is written")
    path = BUNDLED / f"{directory.name}.safetensors"
    content = serialize(tensors, metric.weight_config())
    path.write_bytes(content)
    print(f"{path}: {len(content) / 1e6:.2f} MB, sha256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
