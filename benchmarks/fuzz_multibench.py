"""Converts damaged files of MultiBench's structure: each must be converted or refused in words, in bounded memory.

    python benchmarks/fuzz_multibench.py --files 10000

Prints the number of files that were converted and refused, the slowest one and the peak of the memory; exit code 1
after the first file that ends in anything else, which is kept.
"""

import pickle
import random
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

import common

from m3col.data.multibench.convert import convert
from m3col.errors import InputError
from tests.data import multibench_files
from tests.data.test_multibench import damaged


def main() -> int:
    parser = common.parser(__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    options = parser.parse_args()
    values = [multibench_files.affect(rows=9, steps=2), multibench_files.mimic(rows=12)]
    files = [pickle.dumps(value, protocol=protocol) for value in values for protocol in range(6)]
    folder = Path(tempfile.mkdtemp())
    converted, slowest, reasons = 0, 0.0, dict[str, int]()
    for number in range(100 if options.quick else options.files):
        path = folder / "damaged.pkl"
        path.write_bytes(damaged(random.Random(number), files[number % len(files)]))
        began = time.perf_counter()
        try:
            convert(path, folder / "out")
            converted += 1
            shutil.rmtree(folder / "out")
        except InputError as error:
            reason = error.faults[0].removeprefix(f"{path}: ")[:25]
            reasons[reason] = reasons.get(reason, 0) + 1
        except BaseException:
            print(f"file {number} ended in another error; it is kept as {path}", file=sys.stderr)
            raise
        slowest = max(slowest, time.perf_counter() - began)
    print(f"{converted} converted, {sum(reasons.values())} refused, for {len(reasons)} reasons")
    print(f"slowest {slowest:.2f} s, peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
