"""Training and segmentation in a process of their own.

The viewer's side is `napari_unet3d.worker.client`, which knows neither torch nor Qt;
the other side is `napari_unet3d.worker.server`. They exchange the records of
`napari_unet3d.worker.protocol`.
"""
