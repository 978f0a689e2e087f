"""Sends a picture to a OneFormer on a Triton server, and writes what it finds as a PNG of class numbers.

The largest number that a pixel can hold means nothing was found there.

python client.py MODEL PICTURE RESULT.png [HOST:PORT]
"""

import json
import sys

import numpy as np
import tritonclient.grpc as triton
from PIL import Image


def main() -> None:
    name, source, target, address = [*sys.argv[1:], "localhost:8001"][:4]
    server = triton.InferenceServerClient(address)
    config = server.get_model_config(name, as_json=True)["config"]
    about = json.loads(config["parameters"]["oneformer_jax"]["string_value"])
    height, width = about["image_size"]
    names = [category["name"] for category in about["categories"]]
    kind = np.uint8 if len(names) < 255 else np.uint16
    nothing = np.iinfo(kind).max
    count, *_ = map(int, config["input"][0]["dims"]) if not config.get("max_batch_size") else (1,)

    picture = Image.open(source).convert("RGB")
    scale = min(height / picture.height, width / picture.width)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    canvas = Image.new("RGB", (width, height), tuple(round(value) for value in about["pixel_mean"]))
    canvas.paste(picture.resize(size, Image.Resampling.BILINEAR))
    batch = np.repeat(np.asarray(canvas)[None], count, axis=0)

    images = triton.InferInput("images", list(batch.shape), "UINT8")
    images.set_data_from_numpy(batch)
    found = server.infer(name, [images])
    results = {output["name"]: found.as_numpy(output["name"])[0] for output in config["output"]}

    if "classes" in results:
        classes = results["classes"]
    elif "segment_ids" in results:  # id i + 1 has the label at i, 0 is nothing
        classes = np.append(nothing, results["labels"])[results["segment_ids"]]
    else:  # the best instance on top
        classes = np.full((height, width), nothing)
        for index in np.argsort(results["scores"], kind="stable"):
            if results["scores"][index] > about["thresholds"]["object_mask_threshold"]:
                classes[results["masks"][index]] = results["labels"][index]

    seen = Image.fromarray(classes.astype(kind)).crop((0, 0, *size))
    seen.resize(picture.size, Image.Resampling.NEAREST).save(target)
    for label, pixels in zip(*np.unique(np.asarray(seen), return_counts=True), strict=True):
        print(f"{pixels / seen.width / seen.height:6.1%}  {names[label] if label < len(names) else 'nothing'}")


if __name__ == "__main__":
    main()
