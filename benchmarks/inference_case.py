"""Segment one volume in one way, in a process of its own, and say what it took.

Run by `inference.py`, which gives the case as JSON and reads the answer as JSON. A
fresh process is needed because the memory of earlier cases would count otherwise.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from reporting import prepare, seconds_of

from napari_unet3d.engine import SegmentationConfig, Segmenter, load
from napari_unet3d.engine.device import choose_precision


def main() -> None:
    """Read the case from the first argument and print the answer."""
    case = json.loads(sys.argv[1])
    prepare(case["threads"])
    with torch.no_grad():
        answer = {
            "ours": ours,
            "ours, bfloat16": ours,
            "one pass": one_pass,
            "tune": tune,
        }.get(case["method"], sliding_window)(case)
    print(json.dumps(answer))


def ours(case: dict) -> dict:
    """Segment as `napari-unet3d segment` does; the filter stem's time included."""
    segmenter = _segmenter(case)
    labels = np.zeros(segmenter.shape, np.uint8)

    def work():
        for _ in segmenter.run(labels):
            pass

    answer = _measured(work, case)
    if case["compare"]:
        answer |= _difference(case, segmenter.logits(), labels)
    return answer


def one_pass(case: dict) -> dict:
    """Apply the network to the whole volume at once, and keep the logits."""
    network, features = _network_and_features(case)
    found = {}

    def work():
        with _autocast(case):
            logits = network(features.contiguous(memory_format=torch.channels_last_3d))
        found["labels"] = _labels(logits)
        found["logits"] = logits

    answer = _measured(work, case)
    np.save(case["reference"], _in_main_memory(found["logits"]))
    return answer


def sliding_window(case: dict) -> dict:
    """Apply the same network in MONAI's overlapping windows."""
    from monai.inferers import sliding_window_inference

    network, features = _network_and_features(case)
    predict = _predictor(network, case["layout"])
    found = {}

    def work():
        with _autocast(case):
            logits = sliding_window_inference(
                features,
                (case["roi"],) * 3,
                case["batch"],
                predict,
                overlap=case["overlap"],
                mode=case["mode"],
            )
        found["labels"] = _labels(logits)
        found["logits"] = logits

    answer = _measured(work, case)
    if case["compare"]:
        logits = _in_main_memory(found["logits"])
        answer |= _difference(case, logits, found["labels"])
    return answer


def tune(case: dict) -> dict:
    """Find the layout and the number of windows at once that are the quickest.

    More windows at once take more memory, so they must gain three percent.
    """
    network, features = _network_and_features(case)
    best: dict = {}
    for layout in ("channels last", "contiguous"):
        predict = _predictor(network, layout)
        for batch in (1, 2, 4):
            window = features[:, :, : case["roi"], : case["roi"], : case["roi"]]
            windows = window.expand(batch, -1, -1, -1, -1).contiguous()
            with _autocast(case):
                seconds = min(
                    _seconds(lambda w=windows, p=predict: p(w), case) / batch
                    for _ in range(2)
                )
            if not best or seconds < 0.97 * best["seconds"]:
                best = {"layout": layout, "batch": batch, "seconds": seconds}
    return best


def _segmenter(case: dict) -> Segmenter:
    # The network stays the same for all sizes, and takes no time to prepare.
    precision = case.get("precision", "float32")
    config = SegmentationConfig(
        recompute_statistics=False, device=case["device"], precision=precision
    )
    return Segmenter(load(case["model"]), np.load(case["image"]), config)


def _network_and_features(case: dict):
    """Return the folded network of a `Segmenter` and its input, computed before."""
    network = _segmenter(case | {"image": case["small image"]}).network
    features = torch.from_numpy(np.load(case["features"]))[None]
    return network, features.to(case["device"])


def _predictor(network, layout: str):
    if layout == "contiguous":
        network.to(memory_format=torch.contiguous_format)
        return network
    network.to(memory_format=torch.channels_last_3d)
    return lambda window: network(
        window.contiguous(memory_format=torch.channels_last_3d)
    )


def _labels(logits: torch.Tensor) -> np.ndarray:
    return logits.argmax(dim=1)[0].to(torch.uint8).cpu().numpy() + 1


def _in_main_memory(logits: torch.Tensor) -> np.ndarray:
    return logits[0].float().cpu().contiguous().numpy()


def _autocast(case: dict):
    """Compute on a GPU in the number format that ours has there."""
    device = torch.device(case["device"])
    dtype = choose_precision(device) if device.type == "cuda" else torch.float32
    return torch.autocast(device.type, dtype, enabled=device.type == "cuda")


def _measured(work, case: dict) -> dict:
    if torch.device(case["device"]).type == "cuda":
        work()  # what is compiled and tried out at first
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / 2**30
        seconds = _seconds(work, case)
        peak = torch.cuda.max_memory_allocated() / 2**30
        return {"seconds": seconds, "peak": peak, "added": peak - before}
    before = _start_of_peak()
    seconds = _seconds(work, case)
    peak = _peak()
    return {"seconds": seconds, "peak": peak, "added": peak - before}


def _seconds(work, case: dict) -> float:
    return seconds_of(work, case["device"])


def _start_of_peak() -> float:
    """Forget the highest memory use so far, where possible, and return the present."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> float:
    """Return the most memory in GiB that this process has had."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 2**20
    import psutil

    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):
        return memory.peak_wset / 2**30
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30


def _difference(case: dict, logits: np.ndarray, labels: np.ndarray) -> dict:
    """Compare with the logits of one pass."""
    wanted = np.load(case["reference"])
    return {
        "logit difference": float(np.abs(logits - wanted).max()),
        "logit scale": float(wanted.std()),
        "other labels": float((wanted.argmax(axis=0) + 1 != labels).mean()),
    }


if __name__ == "__main__":
    main()
