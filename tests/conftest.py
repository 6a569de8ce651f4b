"""Passive OpenMP and one thread per test process: suites share two cores with whatever else runs."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
