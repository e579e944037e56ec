"""Draws every figure."""

from __future__ import annotations

from docs.figures import cones, derivative, layer
from docs.figures.palette import save

save("layer", layer.draw)
save("cones", cones.draw_cones)
save("projection", cones.draw_projection)
save("derivative", derivative.draw)
