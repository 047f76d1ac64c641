"""LeRobot imports torchvision, whose compiled operations a CPU build of torch lacks (parity/oracle.py)."""

import torch

for name in ("nms", "qnms"):
    torch.library.define(
        f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    )
