"""Pictures of an environment: the map, sessions on their way, servers, what users lose; a window or an array.

Pygame is imported when the first frame is drawn: `pip install 'kvroam[render]'`.
"""

from .renderer import Renderer
from .viewer import RENDER_MODES, Viewer

__all__ = ["RENDER_MODES", "Renderer", "Viewer"]
