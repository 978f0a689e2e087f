"""PyTorch's convolution and its gradients, for images and kernels as JAX has them."""

import numpy as np
import torch


def torch_convolution(x: np.ndarray, kernel: np.ndarray, cotangent: np.ndarray, groups: int = 1) -> list[np.ndarray]:
    """The result, which is as large as the image (B, H, W, C), and the gradients of image and kernel (S, S, C, D)."""
    image = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    weight = torch.tensor(kernel.transpose(3, 2, 0, 1), requires_grad=True)
    found = torch.nn.functional.conv2d(image, weight, padding=kernel.shape[0] // 2, groups=groups)
    found.backward(torch.tensor(cotangent.transpose(0, 3, 1, 2)))
    truths = found.detach().permute(0, 2, 3, 1), image.grad.permute(0, 2, 3, 1), weight.grad.permute(2, 3, 1, 0)
    return [truth.numpy() for truth in truths]
