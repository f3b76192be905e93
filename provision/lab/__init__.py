"""Throwaway hosts on this machine: whole systemd hosts to rehearse on and to test with.

`Lab` boots them, `Lab.find` recovers a running one. Everything of a lab lies below one folder and
carries its name; `Lab.down` takes all of it away again.
"""

from provision.lab.host import LabHost
from provision.lab.lab import Lab
from provision.lab.run import LabError, LabUnavailable

__all__ = ["Lab", "LabError", "LabHost", "LabUnavailable"]
