"""Radio assets built with Sionna (path-gain maps, street routes, the SINR-to-efficiency table) and their builder."""

from .phy import PhyTable, load_phy_table
from .scene import DIRECTIONS, Scene, available, load

__all__ = ["DIRECTIONS", "PhyTable", "Scene", "available", "load", "load_phy_table"]
