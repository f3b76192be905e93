"""Throwaway hosts on this machine: whole systemd hosts for rehearsals and tests.

`Lab` boots them, `Lab.find` finds a running lab, `Lab.down` removes it. Everything of a lab is below one folder and has
the lab's name in its own.
"""

from provision_lab.hosts import LabHost
from provision_lab.lab import INVENTORY, Lab
from provision_lab.run import LabError, LabUnavailable

__all__ = ["INVENTORY", "Lab", "LabError", "LabHost", "LabUnavailable"]
