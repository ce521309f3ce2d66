"""Open napari with the sample, its sparse annotation and the dock widget.

``python -m napari_unet3d._qt.start``
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari import Viewer

    from .widget import AnnotateAndTrain


def main() -> None:
    """Open the viewer and run it until it is closed."""
    import napari

    viewer = napari.Viewer(title="napari-unet3d")
    open_sample(viewer)
    napari.run()


def open_sample(viewer: Viewer) -> AnnotateAndTrain:
    """Open the sample and the dock widget in a viewer.

    Returns
    -------
    AnnotateAndTrain
        The widget.
    """
    viewer.open_sample("napari-unet3d", "tubules")
    _, widget = viewer.window.add_plugin_dock_widget(
        "napari-unet3d", "Annotate & Train"
    )
    return widget


if __name__ == "__main__":
    main()
