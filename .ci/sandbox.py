#!/usr/bin/env python3
"""Holds what TinyChat did under `strace -f` against what its systemd unit lets it do.

No systemd runs where this is checked, so the filter cannot be switched on; but which system calls a unit allows,
systemd-analyze knows, and which the server makes, strace has seen.
"""
import re
import subprocess
import sys

unit_path, trace_path = sys.argv[1:]
unit = open(unit_path).read()


def expand(name):
    """The system calls of a set like @system-service, with the sets in it."""
    if not name.startswith("@"):
        return {name}
    lines = subprocess.run(["systemd-analyze", "syscall-filter", name], check=True, capture_output=True, text=True)
    names = [line.strip() for line in lines.stdout.splitlines()[1:]]
    return set().union(*(expand(name) for name in names if name and not name.startswith("#")))


allowed = set()
for value in re.findall(r"^SystemCallFilter=(.*)$", unit, re.MULTILINE):
    names = set().union(*(expand(name) for name in value.lstrip("~").split()))
    allowed = allowed - names if value.startswith("~") else allowed | names

trace = open(trace_path, errors="replace").read()
# From the first call after systemd would have started the program.
made = set(re.findall(r"^(?:\[pid +\d+\] |\d+ +)?([a-z_0-9]+)\(", trace, re.MULTILINE))
faults = [f"the unit does not allow {name}" for name in sorted(made - allowed)]
if re.search(r"PROT_WRITE\|PROT_EXEC", trace):
    faults.append("MemoryDenyWriteExecute=: memory was writable and executable")
families = set(re.findall(r"^RestrictAddressFamilies=(.*)$", unit, re.MULTILINE)[0].split())
used = set(re.findall(r"socket(?:pair)?\((AF_\w+)", trace))
faults += [f"RestrictAddressFamilies=: {family} was used" for family in sorted(used - families)]

faults += [f"the trace is no good: {name} is not in it" for name in ("accept4", "poll", "recvfrom") if name not in made]
print(f"{len(made)} system calls made, {len(allowed)} allowed; address families {', '.join(sorted(used))}")
print("\n".join(faults) or "the unit allows all of them")
sys.exit(bool(faults))
