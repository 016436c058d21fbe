"""SEAM in PyTorch, to measure against: networks, maps at several scales, losses, augmentation.

The arithmetic is that of `wsss_tf` and of the official code, which does not come with it. Maps are
[B, D, H, W]. Weights are random: what is measured is time.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance
from torch import nn

from wsss_tf.backbones.channels import scale_channels

_MEAN = np.float32([0.485, 0.456, 0.406])
_STD = np.float32([0.229, 0.224, 0.225])
_EPSILON = 1e-5

# === Backbones: stages 2, 3 and 4 of a picture ===


class _Convolution(nn.Conv2d):
    """Without bias; padded on both sides, or as TensorFlow's "same", more below and right."""

    def __init__(self, source, count, size, stride=1, dilation=1, groups=1, same=False):
        pad = 0 if same else dilation * (size // 2)
        super().__init__(source, count, size, stride, pad, dilation, groups, bias=False)
        self.same = same and size > 1

    def forward(self, x):
        """Return the convolved maps."""
        if self.same:
            sides = zip(x.shape[:1:-1], self.kernel_size, self.stride, self.dilation)
            total = [max(0, -(-n // s) * s - s + (k - 1) * d + 1 - n) for n, k, s, d in sides]
            x = F.pad(x, [part for t in total for part in (t // 2, t - t // 2)])
        return super().forward(x)


class _Residual(nn.Module):
    """A unit of ResNet38: two 3x3 convolutions, or, with dropout, a bottleneck around one."""

    def __init__(self, source, middle, inner, last, stride, dilations, dropout, is_projected):
        super().__init__()
        size = 3 if dropout is None else 1
        self.norm = nn.BatchNorm2d(source)
        self.first = _Convolution(source, middle, size, stride, dilations[0])
        rest = [nn.BatchNorm2d(middle), nn.ReLU()]
        if dropout is None:
            rest.append(_Convolution(middle, last, 3, 1, dilations[1]))
        else:
            rest += [nn.Dropout2d(dropout), _Convolution(middle, inner, 3, 1, dilations[1])]
            rest += [nn.BatchNorm2d(inner), nn.ReLU(), nn.Dropout2d(dropout)]
            rest.append(_Convolution(inner, last, 1))
        self.rest = nn.Sequential(*rest)
        self.shortcut = _Convolution(source, last, 1, stride) if is_projected else None

    def forward(self, x):
        """Return the unit's output, and its input after BatchNorm and ReLU."""
        active = F.relu(self.norm(x))
        x = x if self.shortcut is None else self.shortcut(active)
        return x + self.rest(self.first(active)), active


class ResNet38(nn.Module):
    """The backbone of SEAM; see `wsss_tf.backbones.resnet38`."""

    def __init__(self, width=1.0):
        super().__init__()
        self.depths = [scale_channels(n, width) for n in (512, 1024, 4096)]
        source = scale_channels(64, width)
        self.stem = _Convolution(3, source, 3)
        self.units = nn.ModuleList()
        # Units alike, channels, stride of the first, dilations of the first and others, dropout.
        for count, middle, last, stride, first, others, dropout in (
            (3, 128, 128, 2, (1, 1), (1, 1), None),
            (3, 256, 256, 2, (1, 1), (1, 1), None),
            (6, 512, 512, 2, (1, 1), (1, 1), None),
            (3, 512, 1024, 1, (1, 2), (2, 2), None),
            (1, 512, 2048, 1, (1, 4), None, 0.3),
            (1, 1024, 4096, 1, (1, 4), None, 0.5),
        ):
            middle, inner, last = (scale_channels(n, width) for n in (middle, last // 2, last))
            for i in range(count):
                settings = (stride, first) if i == 0 else (1, others)
                unit = _Residual(source, middle, inner, last, *settings, dropout, i == 0)
                self.units.append(unit)
                source = last
        self.norm = nn.BatchNorm2d(source)

    def forward(self, x):
        """Return the stages of a normalised picture."""
        x, inner = self.stem(x), []
        for unit in self.units:
            x, active = unit(x)
            inner.append(active)
        return inner[12], inner[15], F.relu(self.norm(x))

    def frozen(self):
        """Return the modules that the recipe does not train: the stem and the first units."""
        return [self.stem, *self.units[:3]]


class _Inverted(nn.Module):
    """A block of EfficientNet-Lite."""

    def __init__(self, source, count, size, expansion, stride, dilation, is_added):
        super().__init__()
        self.is_added = is_added
        wide, layers = expansion * source, []
        if expansion > 1:
            layers += [_Convolution(source, wide, 1), _lite_norm(wide), nn.ReLU6()]
        layers.append(_Convolution(wide, wide, size, stride, dilation, wide, same=True))
        layers += [_lite_norm(wide), nn.ReLU6(), _Convolution(wide, count, 1), _lite_norm(count)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        """Return the block's output."""
        return x + self.layers(x) if self.is_added else self.layers(x)


def _lite_norm(count):
    return nn.BatchNorm2d(count, eps=1e-3)


class EfficientNetLite0(nn.Module):
    """The backbone for photographs, of output stride 16; see `backbones.efficientnet_lite`."""

    def __init__(self):
        super().__init__()
        self.depths = [40, 112, 1280]
        stem = nn.Sequential(_Convolution(3, 32, 3, 2, same=True), _lite_norm(32), nn.ReLU6())
        self.groups, source = nn.ModuleList([stem]), 32
        # Blocks, channels, kernel, expansion, stride of the first, dilations of first and others.
        for repeats, count, size, expansion, stride, first, others in (
            (1, 16, 3, 1, 1, 1, 1),
            (2, 24, 3, 6, 2, 1, 1),
            (2, 40, 5, 6, 2, 1, 1),
            (3, 80, 3, 6, 2, 1, 1),
            (3, 112, 5, 6, 1, 1, 1),
            (4, 192, 5, 6, 1, 1, 2),
            (1, 320, 3, 6, 1, 2, 2),
        ):
            group = nn.Sequential()
            for i in range(repeats):
                settings = (stride, first) if i == 0 else (1, others)
                group.append(_Inverted(source, count, size, expansion, *settings, i > 0))
                source = count
            self.groups.append(group)
        self.head = nn.Sequential(_Convolution(source, 1280, 1), _lite_norm(1280), nn.ReLU6())
        # From (v / 255 - mean) / deviation to (v - 127) / 128.
        self.scale = torch.tensor(255 * _STD / 128)[:, None, None]
        self.offset = torch.tensor((255 * _MEAN - 127) / 128)[:, None, None]

    def forward(self, x):
        """Return the stages of a normalised picture."""
        x, stages = x * self.scale + self.offset, []
        for group in self.groups:
            x = group(x)
            stages.append(x)
        return stages[3], stages[5], self.head(x)

    def frozen(self):
        """Return the modules that `frozen_stages` 2 does not train."""
        return self.groups[:3]


# === SEAM ===


class Seam(nn.Module):
    """SEAM's network on a backbone; see `wsss_tf.models.seam`."""

    def __init__(self, backbone, num_classes, width=1.0, dropout=0.5):
        super().__init__()
        filters = [scale_channels(n, width) for n in (64, 128, 192)]
        self.backbone = backbone
        self.dropout = nn.Dropout2d(dropout)
        self.fc8 = _Convolution(backbone.depths[2], num_classes + 1, 1)
        self.f8_3 = _Convolution(backbone.depths[0], filters[0], 1)
        self.f8_4 = _Convolution(backbone.depths[1], filters[1], 1)
        self.f9 = _Convolution(3 + filters[0] + filters[1], filters[2], 1)

    def forward(self, image):
        """Return the maps "cam" and "cam_rv", [B, K, H, W]."""
        stage2, stage3, stage4 = self.backbone(image)
        scores = self.fc8(self.dropout(stage4))
        size = scores.shape[2:]
        # Maps of one grid are left alone.
        stage2, stage3 = (
            stage.detach() if stage.shape[2:] == size else _resize(stage.detach(), size)
            for stage in (stage2, stage3)
        )
        sides = [F.relu(self.f8_3(stage2)), F.relu(self.f8_4(stage3))]
        features = self.f9(torch.cat([_resize(image, size), *sides], 1))
        refined = _pcm(_norm_cam(scores.detach()), features)
        return _resize(scores, image.shape[2:]), _resize(refined, image.shape[2:])

    def set_training(self):
        """Train as the recipes do: BatchNorm as it was loaded, the first layers frozen."""
        self.train()
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval().requires_grad_(False)
        for module in self.backbone.frozen():
            module.requires_grad_(False)


def _resize(maps, size):
    return F.interpolate(maps, size, mode="bilinear", align_corners=True)


def _norm_cam(scores):
    scores = F.relu(scores)
    high = scores.amax((2, 3), keepdim=True) + _EPSILON
    return _suppressed(_with_background(F.relu(scores - _EPSILON) / high))


def _with_background(maps):
    return torch.cat([1 - maps[:, 1:].amax(1, keepdim=True), maps[:, 1:]], 1)


def _suppressed(maps):
    foreground = maps[:, 1:]
    kept = torch.where(foreground == foreground.amax(1, keepdim=True), foreground, 0.0)
    return torch.cat([maps[:, :1], kept], 1)


def _pcm(cam, features):
    batch, count, height, width = cam.shape
    features = features.flatten(2)
    features = features / (features.norm(dim=1, keepdim=True) + _EPSILON)
    affinity = F.relu(features.transpose(1, 2) @ features)
    affinity = affinity / (affinity.sum(1, keepdim=True) + _EPSILON)
    return (cam.flatten(2) @ affinity).view(batch, count, height, width)


def counts(net, size):
    """Return (parameters, multiply-accumulates of the convolutions for a picture of a size)."""
    total = 0

    def count(module, _, output):
        nonlocal total
        total += module.weight[0].numel() * output.numel()

    handles = [
        module.register_forward_hook(count)
        for module in net.modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad():
        net.eval()(torch.zeros(1, 3, *size))
    for handle in handles:
        handle.remove()
    return sum(p.numel() for p in net.parameters()), total


def multi_scale_cams(net, picture, scales):
    """Return maps float32 [C, H, W] in [0, 1] of a picture uint8 [H, W, 3], with mirror images."""
    height, width = picture.shape[:2]
    total, source = 0, Image.fromarray(picture)
    with torch.no_grad():
        for scale in scales:
            size = round(width * scale), round(height * scale)
            copy = _normalized(source.resize(size, Image.BICUBIC))
            for is_mirrored in (False, True):
                maps = net(copy.flip(3) if is_mirrored else copy)[1][:, 1:]
                maps = F.interpolate(maps, (height, width), mode="bilinear", align_corners=False)
                total = total + (maps.flip(3) if is_mirrored else maps)
    total = F.relu(total[0])
    high, low = total.amax((1, 2), keepdim=True), total.amin((1, 2), keepdim=True)
    kept = torch.where(total < low + _EPSILON, 0.0, total)
    return ((kept - low - _EPSILON) / (high - low + _EPSILON)).clamp(0, 1).numpy()


def _normalized(picture):
    image = (np.asarray(picture, np.float32) / 255 - _MEAN) / _STD
    return torch.from_numpy(image.transpose(2, 0, 1)[None].copy())


# === Training ===


def training_step(net, optimizer, images, labels, rescale):
    """Take one step of SEAM; return its loss. `labels` are [B, C], both branches are trained."""
    scaled = [math.floor(n * rescale) for n in images.shape[2:]]
    cam1, refined1 = net(images)
    cam2, refined2 = net(_resize(images, scaled))
    present = torch.cat([torch.ones_like(labels[:, :1]), labels], 1)[:, :, None, None]

    def classification(cam):
        return F.multilabel_soft_margin_loss(cam.mean((2, 3))[:, 1:], labels)

    def pooled(refined):
        strongest = (refined * present)[:, 1:].amax(1).flatten(1)
        weakest = torch.topk(strongest, strongest.shape[1] // 4, largest=False)[0]
        return F.relu(weakest).mean()

    def first(maps):
        return _resize(_max_norm(maps), scaled) * present

    def second(maps):
        return _max_norm(maps) * present

    def cross(cam, refined):
        target = _suppressed(_with_background(cam)).detach()
        difference = (target - refined).abs().flatten(1)
        return torch.topk(difference, int(0.2 * difference.shape[1]))[0].mean()

    maps1, maps2 = first(cam1), second(cam2)
    loss = (classification(cam1) + classification(cam2)) / 2
    loss = loss + (pooled(refined1) + pooled(refined2)) / 2
    loss = loss + (maps1[:, 1:] - maps2[:, 1:]).abs().mean()
    loss = loss + cross(maps2, first(refined1)) + cross(maps1, second(refined2))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def _max_norm(maps):
    maps = F.relu(maps)
    high, low = maps.amax((2, 3), keepdim=True), maps.amin((2, 3), keepdim=True)
    return F.relu(maps - low - _EPSILON) / (high - low + _EPSILON)


class Pictures(torch.utils.data.Dataset):
    """Picture files with SEAM's augmentation by Pillow; see `data.transforms.seam_augmentation`."""

    def __init__(self, paths, smallest, largest, crop):
        self.paths, self.sides, self.crop = paths, (smallest, largest), crop
        self.rng = np.random.default_rng(0)

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        rng = self.rng
        picture = Image.open(self.paths[index]).convert("RGB")
        scale = rng.integers(self.sides[0], self.sides[1] + 1) / max(picture.size)
        picture = picture.resize([round(n * scale) for n in picture.size], Image.BICUBIC)
        if rng.random() < 0.5:
            picture = picture.transpose(Image.FLIP_LEFT_RIGHT)
        for i in rng.permutation(4):
            if i == 3:
                picture = _turn_hue(picture, rng.uniform(-0.1, 0.1))
            else:
                picture = _ENHANCERS[i](picture).enhance(rng.uniform(0.7, 1.3))
        image = (np.asarray(picture, np.float32) / 255 - _MEAN) / _STD
        square = np.zeros((self.crop, self.crop, 3), np.float32)
        cut, place = [], []
        for length in image.shape[:2]:
            offset = rng.integers(abs(length - self.crop) + 1)
            begin, corner = (offset, 0) if length > self.crop else (0, offset)
            cut.append(slice(begin, begin + self.crop))
            place.append(slice(corner, corner + min(length, self.crop)))
        square[tuple(place)] = image[tuple(cut)]
        return torch.from_numpy(square.transpose(2, 0, 1).copy())


_ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def _turn_hue(picture, shift):
    hue, saturation, value = picture.convert("HSV").split()
    turned = (np.asarray(hue).astype(np.int32) + int(shift * 255)).astype(np.uint8)
    return Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")
