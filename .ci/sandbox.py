#!/usr/bin/env python3
"""Compares a trace of TinyChat from `strace -f` with what its systemd unit allows.

CI has no running systemd, so it cannot apply the filter itself. systemd-analyze lists the system calls that the unit
allows, and the trace lists those that the server made.

Usage: sandbox.py UNIT TRACE
"""
import os
import re
import subprocess
import sys

unit_path, trace_path = sys.argv[1:]
unit = open(unit_path).read()


def expand(name):
    """The system calls in a set like @system-service, including those of nested sets."""
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
made = set(re.findall(r"^(?:\[pid +\d+\] |\d+ +)?([a-z_0-9]+)\(", trace, re.MULTILINE))
# SQLite gives its files the owner of the database, but only if it is run by root.
if os.geteuid() == 0:
    made.discard("fchown")
errors = [f"the unit does not allow {name}" for name in sorted(made - allowed)]
if re.search(r"PROT_WRITE\|PROT_EXEC", trace):
    errors.append("MemoryDenyWriteExecute=: memory was mapped writable and executable")
families = set(re.findall(r"^RestrictAddressFamilies=(.*)$", unit, re.MULTILINE)[0].split())
used = set(re.findall(r"socket(?:pair)?\((AF_\w+)", trace))
errors += [f"RestrictAddressFamilies=: {family} was used" for family in sorted(used - families)]

errors += [f"the trace is incomplete: {name} is missing" for name in ("accept4", "poll", "recvfrom", "pwrite64", "fsync") if name not in made]
print(f"{len(made)} system calls made, {len(allowed)} allowed; address families {', '.join(sorted(used))}")
print("\n".join(errors) or "the unit allows all of them")
sys.exit(bool(errors))
