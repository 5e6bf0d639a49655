"""What NumPy's convolution and pooling are made of, and the layout that numba's passes share.

Images stay (n, c, h, w), PyTorch's order. With a plane's rows written one after the other, a filter's tap is one shift
of the whole plane: output position j reads input position j + row · pitch + column. So im2col copies runs of a whole
plane (958 floats for a 32×32 one) instead of patch rows of three, and the product with the filters comes out as planes
again; the k − 1 last columns of each row are junk that nobody reads. Measured on 64 images, im2col and product: 0.42 ms
for 32×32, 3 channels to 8 filters 3×3, against 1.33 with the channels innermost; 0.50 against 0.71 for 15×15, 8 to 30.

A last row of ones in the columns carries the bias forward and its gradient back, without a pass of their own.

What is called `scratch` here is `Backend.scratch_up_to`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from gpunet.backend.base import Array
from gpunet.backend.blas import multiply

SMALL = 1_000_000  # multiplications: up to here OpenBLAS does not pack operands, so one image at a time is best
Scratch: TypeAlias = Callable[[str, tuple[int, ...], Any], Array]


class Windows(NamedTuple):
    """Sizes of one convolution."""

    c: int  # planes of an image
    height: int
    width: int
    k: int  # rows and columns of a filter
    padding: int
    pool: int
    pitch: int  # length of a padded row
    padded: int  # number of padded rows
    rows: int  # of output, as far as pools take them in
    columns: int
    plane: int  # positions of an output plane, junk included
    run: int  # positions up to the last that is not junk
    taps: int  # weights of one filter
    size: int  # of one image's columns

    def inside(self, framed: Array) -> Array:
        """Of padded images (n, c, padded, pitch) what is not padding."""
        return framed[:, :, self.padding : self.padding + self.height, self.padding : self.padding + self.width]


@cache
def windows_of(image: tuple[int, int, int], k: int, padding: int, pool: int) -> Windows:
    """For images (c, h, w), filters k × k, `padding` zeros around, and pools of pool × pool."""
    c, height, width = image
    pitch, padded, taps = width + 2 * padding, height + 2 * padding, c * k * k
    rows, columns = ((n - k + 1) // pool * pool for n in (padded, pitch))
    plane = rows * pitch
    run, size = plane - pitch + columns, plane * (taps + 1)
    return Windows(c, height, width, k, padding, pool, pitch, padded, rows, columns, plane, run, taps, size)


def im2col(x: Array, windows: Windows, scratch: Scratch) -> Array:
    """The columns (taps + 1, images, plane) of images x; their last row is all ones."""
    images, (c, k) = len(x), (windows.c, windows.k)
    x = padded(x, windows, scratch)
    out = scratch("columns", (windows.taps + 1, images, windows.plane), x.dtype)
    of_image, of_plane, of_row, step = x.strides
    shape, strides = (c, k, k, images, windows.run), (of_plane, of_row, step, of_image, step)
    shifted: Array = np.ndarray(shape, x.dtype, x, 0, strides)  # as_strided takes ten times as long
    np.copyto(out[:-1].reshape(c, k, k, images, -1)[..., : windows.run], shifted)
    out[:-1, :, windows.run :] = 0  # BLAS reads these too: no stray NaN there
    out[-1] = 1
    return out


def image_columns(x: Array, windows: Windows, scratch: Scratch) -> Array:
    """The columns (images, taps, positions) of images x, no junk among them: each image's are a matrix by themselves.

    Products of an image alone have the same bits whatever batch it is in, and those with thousands of filters take so
    long that what is copied here does not matter.
    """
    x, (c, k) = padded(x, windows, scratch), (windows.c, windows.k)
    out = scratch("columns", (len(x), windows.taps, windows.rows * windows.columns), x.dtype)
    of_image, of_plane, of_row, step = x.strides
    shape, strides = (len(x), c, k, k, windows.rows, windows.columns), (of_image, of_plane, of_row, step, of_row, step)
    np.copyto(out.reshape(shape), np.ndarray(shape, x.dtype, x, 0, strides))
    return out


def padded(x: Array, windows: Windows, scratch: Scratch) -> Array:
    """The images with zeros around, C-contiguous: themselves where they are so."""
    if not windows.padding and x.flags.c_contiguous:
        return x
    framed = scratch("framed", (len(x), windows.c, windows.padded, windows.pitch), x.dtype)
    framed.fill(0)
    windows.inside(framed)[...] = x
    return framed


def product(a: Array, planes: Array, out: Array) -> None:
    """out[:, i] = a planes[:, i] for every image i; one product for all of them where they are large."""
    size = a.size * planes.shape[2]
    if size > SMALL:
        multiply(size * planes.shape[1], a, planes.reshape(len(planes), -1), out.reshape(len(out), -1))
    else:
        multiply(size, a, planes.transpose(1, 0, 2), out.transpose(1, 0, 2))


def by_row(planes: Array, windows: Windows) -> Array:
    """(u, images, plane) as (u, images, rows, pitch)."""
    return planes.reshape(*planes.shape[:2], windows.rows, windows.pitch)


def filter_gradients(dz: Array, columns: Array, total: Array, scratch: Scratch) -> None:
    """total (u, taps + 1) += Σ over images of dz columnsᵀ."""
    part = scratch("filter gradients of a block", total.shape, total.dtype)
    size = total.size * dz.shape[2]
    if size > SMALL:
        multiply(size * dz.shape[1], dz.reshape(len(dz), -1), columns.reshape(len(columns), -1).T, part)
    else:
        parts = scratch("filter gradients of images", (dz.shape[1], *total.shape), total.dtype)
        multiply(size, dz.transpose(1, 0, 2), columns.transpose(1, 2, 0), parts)
        np.add.reduce(parts, axis=0, out=part)
    np.add(total, part, out=total)


def col2im(d_columns: Array, windows: Windows, dx: Array, scratch: Scratch) -> None:
    """dx (images, c, h, w) = for every pixel the sum over the columns' copies of it."""
    images, (c, k) = len(dx), (windows.c, windows.k)
    framed = scratch("framed", (images, c, windows.padded, windows.pitch), dx.dtype) if windows.padding else dx
    framed.fill(0)
    flat = framed.reshape(images, c, -1)
    by_tap = d_columns.reshape(c, k, k, images, -1)
    for row in range(k):
        for column in range(k):
            start = row * windows.pitch + column
            target = flat[:, :, start : start + windows.run]
            np.add(target, by_tap[:, row, column, :, : windows.run].transpose(1, 0, 2), out=target)
    if framed is not dx:
        dx[...] = windows.inside(framed)


def pool_windows(x: Array, size: int, out: Array, place: Array | None, scratch: Scratch) -> None:
    """`maxpool2d` of one block; x may have more columns than out takes, out and place may have strides."""
    if place is None:
        _pool_values(x, size, out, scratch)
        return
    best, value = (scratch(name, out.shape, x.dtype) for name in ("best", "cell"))
    larger = scratch("larger", out.shape, np.bool_)
    number, last = (scratch(name, out.shape, np.uint8) for name in ("number", "last"))
    np.copyto(best, _cell(x, out, size, 0))
    last.fill(0)
    for cell in range(1, size * size):
        np.copyto(value, _cell(x, out, size, cell))
        np.greater(value, best, out=larger)
        np.multiply(larger.view(np.uint8), np.uint8(cell), out=number)
        np.maximum(last, number, out=last)  # cells come in rising order: the last that was larger stays
        np.maximum(best, value, out=best)
    np.copyto(out, best)
    np.copyto(place, last)


def _pool_values(x: Array, size: int, out: Array, scratch: Scratch) -> None:
    """Across whole rows first, junk and all: that loop is as long as the block, and leaves `size` times less."""
    rows, columns = out.shape[2] * size, x.shape[3] // size
    across = scratch("across", (*x.shape[:2], rows, columns), x.dtype)
    whole = x[:, :, :rows, : columns * size]
    np.maximum(whole[..., ::size], whole[..., size - 1 :: size], out=across)
    for column in range(1, size - 1):
        np.maximum(across, whole[..., column::size], out=across)
    down = across.reshape(*x.shape[:2], -1, size, columns)[..., : out.shape[3]]
    np.maximum(down[:, :, :, 0], down[:, :, :, -1], out=out)
    for row in range(1, size - 1):
        np.maximum(out, down[:, :, :, row], out=out)


def unpool(dy: Array, place: Array, size: int, dx: Array, scratch: Scratch) -> None:
    """`maxpool2d_backward` of one block, where dx is zero already; dx may have strides."""
    here = scratch("larger", dy.shape, np.bool_)
    value = scratch("cell", dy.shape, dy.dtype)
    for cell in range(size * size):
        np.equal(place, cell, out=here)
        np.multiply(dy, here, out=value)
        np.copyto(_cell(dx, dy, size, cell), value)


def _cell(x: Array, pooled: Array, size: int, cell: int) -> Array:
    """Of every window of x the element number `cell`, in the shape of `pooled`."""
    row, column = divmod(cell, size)
    height, width = (n * size for n in pooled.shape[2:])
    return x[:, :, row:height:size, column:width:size]


def average(x: Array, size: int, stride: int, out: Array, scratch: Scratch) -> None:
    """`avgpool2d` of one block: sums along the rows, then down the columns; a window is no more than its own sum."""
    height, columns = (out.shape[2] - 1) * stride + size, out.shape[3]
    across = scratch("across", (*x.shape[:2], height, columns), x.dtype)
    np.copyto(across, _every(x[:, :, :height], 3, 0, stride, columns))
    for column in range(1, size):
        np.add(across, _every(x[:, :, :height], 3, column, stride, columns), out=across)
    np.copyto(out, _every(across, 2, 0, stride, out.shape[2]))
    for row in range(1, size):
        np.add(out, _every(across, 2, row, stride, out.shape[2]), out=out)
    np.multiply(out, out.dtype.type(1 / size**2), out=out)


def average_positions(y: Array, size: int, stride: int, out: Array, scratch: Scratch) -> None:
    """The averages of maps (images, rows, columns, u) with the filters innermost, into out (images, u, h', w')."""
    images, rows, _, u = y.shape
    across = scratch("across", (images, rows, out.shape[3], u), y.dtype)
    sums = scratch("sums of windows", (images, *out.shape[2:], u), y.dtype)
    for column in range(out.shape[3]):
        np.add.reduce(y[:, :, column * stride : column * stride + size], axis=2, out=across[:, :, column])
    for row in range(out.shape[2]):
        np.add.reduce(across[:, row * stride : row * stride + size], axis=1, out=sums[:, row])
    np.multiply(sums.transpose(0, 3, 1, 2), y.dtype.type(1 / size**2), out=out)


def spread_evenly(dy: Array, size: int, stride: int, dx: Array, scratch: Scratch) -> None:
    """`avgpool2d_backward` of one block: down the columns, then along the rows."""
    share = scratch("share of a window", dy.shape, dy.dtype)
    down = scratch("across", (*dx.shape[:3], dy.shape[3]), dx.dtype)
    np.multiply(dy, dy.dtype.type(1 / size**2), out=share)
    down.fill(0)
    for row in range(size):
        part = _every(down, 2, row, stride, dy.shape[2])
        np.add(part, share, out=part)
    dx.fill(0)
    for column in range(size):
        part = _every(dx, 3, column, stride, dy.shape[3])
        np.add(part, down, out=part)


def _every(x: Array, axis: int, first: int, stride: int, count: int) -> Array:
    """Along one axis of x the elements first, first + stride, …, `count` of them."""
    return x[(slice(None),) * axis + (slice(first, first + (count - 1) * stride + 1, stride),)]
