"""A careful script around LiteRT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peer import CONFIDENCE, LITERT, Looker, Prediction

REQUIREMENTS = LITERT
TASKS = ("yolox-tflite", "ssd-tflite", "mobilenet-tflite")
NOTE = "written by hand for this one model; makes a JSON message too"


def make(task: str, model: Path, threads: int) -> Looker:
    """Load the model."""
    import by_hand
    import cv2
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    cv2.setNumThreads(1)
    interpreter = Interpreter(model_path=str(model), num_threads=threads)
    interpreter.allocate_tensors()
    (spec,) = interpreter.get_input_details()
    outputs = interpreter.get_output_details()

    def run(tensor: Any) -> list[Any]:
        interpreter.set_tensor(spec["index"], tensor)
        interpreter.invoke()
        return [interpreter.get_tensor(output["index"]) for output in outputs]

    if task == "yolox-tflite":
        size = int(spec["shape"][2])
        decode = by_hand.yolox_decoder(size)

        def look(image: Any) -> Any:
            tensor, scale = by_hand.letterbox(image, size)
            return by_hand.message(by_hand.clip(decode(run(tensor)[0][0], scale), image))

    elif task == "ssd-tflite":
        side = int(spec["shape"][1])

        def look(image: Any) -> Any:
            height, width = image.shape[:2]
            boxes, labels, scores, count = run(cv2.cvtColor(cv2.resize(image, (side, side)), cv2.COLOR_BGR2RGB)[None])
            found: list[Prediction] = [
                (int(label), float(score), (box[1] * width, box[0] * height, box[3] * width, box[2] * height))
                for box, label, score in zip(boxes[0].tolist(), labels[0], scores[0], strict=True)
                if score >= CONFIDENCE
            ]
            return by_hand.message(by_hand.clip(found[: int(count[0])], image))

    else:
        side = int(spec["shape"][1])
        scale, zero_point = outputs[0]["quantization"]

        def look(image: Any) -> Any:
            height, width = image.shape[:2]
            crop = min(height, width)  # the middle, as models/mobilenet-v2-quant says
            top, left = (height - crop) // 2, (width - crop) // 2
            square = cv2.resize(image[top : top + crop, left : left + crop], (side, side))
            logits = (run(cv2.cvtColor(square, cv2.COLOR_BGR2RGB)[None])[0][0].astype(np.float32) - zero_point) * scale
            chances = np.exp(logits - logits.max())
            chances /= chances.sum()
            best = np.argsort(chances)[::-1][:5]
            return by_hand.message([(int(label), float(chances[label]), None) for label in best])

    return Looker(look=look, tell=lambda result: list(result[0]))
