"""One function in an interpreter of its own, for what can be measured once in a process only."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

CALL = """
import importlib, json, sys
module, name, arguments = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
print("\\n" + json.dumps(getattr(importlib.import_module(module), name)(*arguments)))
"""


def apart(module: str, name: str, *arguments: Any, environment: Mapping[str, str]) -> Any:
    """module.name(*arguments), both ways as JSON."""
    words = [sys.executable, "-c", CALL, module, name, json.dumps(arguments)]
    ran = subprocess.run(words, env=dict(environment), stdout=subprocess.PIPE, text=True, check=False)
    if ran.returncode:
        raise ChildProcessError(f"{module}.{name} ended with code {ran.returncode}; what it said is above")
    return json.loads(ran.stdout.splitlines()[-1])
