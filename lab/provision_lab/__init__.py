"""Throwaway hosts on this machine: whole systemd hosts to rehearse on and to test with.

`Lab` boots them, `Lab.find` recovers a running one. Everything of a lab lies below one folder and
carries its name; `Lab.down` takes all of it away again.
"""

from provision_lab.host import LabHost
from provision_lab.lab import INVENTORY, Lab
from provision_lab.run import LabError, LabUnavailable

__all__ = ["INVENTORY", "Lab", "LabError", "LabHost", "LabUnavailable"]
