"""Check the house, or count it: `python -m tools.house [--figures]`. Exit code 1: something is to mend."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

from tools.house.commands import unknown_commands, unknown_modules, unknown_targets, unread_variables
from tools.house.cycles import import_cycles, wide_circles
from tools.house.dotted import lost_imports, lost_members, lost_modules
from tools.house.figures import figures
from tools.house.help_texts import poor_help
from tools.house.house import PACKAGES, read_house
from tools.house.keys import unknown_keys
from tools.house.links import broken_links
from tools.house.markers import conflict_markers
from tools.house.measurements import stray_measurements
from tools.house.paths import lost_documents, lost_paths
from tools.house.plain_job import plain_job
from tools.house.rooms import poor_records, poor_rooms
from tools.house.shape import shape
from tools.house.twice import doubled_names
from tools.house.walks import walks
from tools.reference import stale_pages

CHECKS = (
    conflict_markers,
    lost_paths,
    lost_documents,
    lost_modules,
    lost_imports,
    lost_members,
    broken_links,
    poor_help,
    unknown_commands,
    unknown_targets,
    unknown_modules,
    unread_variables,
    unknown_keys,
    doubled_names,
    import_cycles,
    wide_circles,
    stray_measurements,
    poor_rooms,
    poor_records,
    stale_pages,
)


def main(arguments: list[str]) -> int:
    gc.disable()  # all that is made here stays to the end; looking through it took half of the time
    house = read_house(Path(__file__).parents[2])
    if arguments == ["--figures"]:
        print("\n".join([*figures(house), *shape(house), *walks(), *plain_job(PACKAGES)]))
        return 0
    if arguments:
        print("usage: python -m tools.house [--figures]", file=sys.stderr)
        return 2
    findings = sorted({finding for check in CHECKS for finding in check(house)})
    for finding in findings:
        print(finding)
    print(f"{len(findings)} to mend in {len(house.texts)} files", file=sys.stderr)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
