#!/usr/bin/env python3
"""Reads what `rn50 pack` wrote with the tools that others use, and holds every picture against the folder it came from.
    pip install webdataset tensorflow-cpu lmdb grpcio-tools
    rn50 pack DATA OUT/webdataset --format webdataset      (and tfrecord, lmdb)
    tools/check_formats.py DATA OUT/webdataset OUT/tfrecord OUT/lmdb
"""
import glob
import importlib.util
import os
import subprocess
import sys
import tempfile

DATUM = """syntax = "proto2";
package caffe;
message Datum {
  optional int32 channels = 1;
  optional int32 height = 2;
  optional int32 width = 3;
  optional bytes data = 4;
  optional int32 label = 5;
  repeated float float_data = 6;
  optional bool encoded = 7 [default = false];
}
"""


def folder(root, split):
    """(bytes, label, class name, CLASS/FILE) in rn50's order: classes, then paths, sorted as bytes."""
    top = os.path.join(root, split)
    classes = sorted(entry.name for entry in os.scandir(os.path.join(root, "train")) if entry.is_dir())
    for label, name in enumerate(classes):
        paths = []
        for base, _, files in os.walk(os.path.join(top, name)):
            paths += [os.path.relpath(os.path.join(base, file), top) for file in files]
        for path in sorted(paths, key=os.fsencode):
            with open(os.path.join(top, path), "rb") as file:
                yield file.read(), label, name, path


def read_webdataset(out, split):
    import webdataset

    shards = sorted(glob.glob(os.path.join(out, split + "-*.tar")))
    for sample in webdataset.WebDataset(shards, shardshuffle=False).decode("rgb"):
        key = next(k for k in sample if k in ("jpg", "png", "bmp", "ppm", "pgm"))
        assert sample[key].ndim == 3, "webdataset decodes the picture"
        facts = sample["json"]
        assert facts["label"] == sample["cls"]
        yield None, sample["cls"], facts["class"], facts["path"]
    for sample in webdataset.WebDataset(shards, shardshuffle=False):
        key = next(k for k in sample if k in ("jpg", "png", "bmp", "ppm", "pgm"))
        yield sample[key], int(sample["cls"]), None, None


def read_tfrecord(out, split):
    import tensorflow as tf

    shards = sorted(glob.glob(os.path.join(out, split + "-?????-of-?????")))
    wanted = {key: tf.io.FixedLenFeature([], tf.string) for key in
              ("image/encoded", "image/class/text", "image/filename", "image/format", "image/colorspace")}
    wanted.update({key: tf.io.FixedLenFeature([], tf.int64) for key in
                   ("image/class/label", "image/height", "image/width", "image/channels")})
    for record in tf.data.TFRecordDataset(shards):
        sample = {key: value.numpy() for key, value in tf.io.parse_single_example(record, wanted).items()}
        if sample["image/format"] in (b"JPEG", b"PNG", b"BMP"):
            shape = tf.io.decode_image(sample["image/encoded"], channels=3).shape
            assert tuple(shape) == (sample["image/height"], sample["image/width"], sample["image/channels"])
        yield (sample["image/encoded"], sample["image/class/label"], sample["image/class/text"].decode(),
               sample["image/filename"].decode())


def datum_class():
    with tempfile.TemporaryDirectory() as place:
        with open(os.path.join(place, "caffe.proto"), "w") as file:
            file.write(DATUM)
        # In a process of its own: beside TensorFlow's protocol buffers it crashes.
        subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{place}", f"--python_out={place}", "caffe.proto"],
                       check=True)
        spec = importlib.util.spec_from_file_location("caffe_pb2", os.path.join(place, "caffe_pb2.py"))
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.Datum


def read_lmdb(out, split):
    import lmdb

    datum_type = datum_class()
    environment = lmdb.open(os.path.join(out, split), readonly=True, lock=False)
    with environment.begin() as transaction:
        for key, value in transaction.cursor():
            datum = datum_type.FromString(value)
            assert datum.encoded
            yield datum.data, datum.label, None, key.decode().split("_", 1)[1]


def check(data, out):
    with open(os.path.join(out, "pack.json")) as file:
        text = file.read()
    kind = next(k for k in ("webdataset", "tfrecord", "lmdb") if f'"{k}"' in text)
    for split in ("train", "val"):
        expected = list(folder(data, split))
        found = list({"webdataset": read_webdataset, "tfrecord": read_tfrecord, "lmdb": read_lmdb}[kind](out, split))
        assert len(found) % len(expected) == 0 and found, (len(found), len(expected))
        for i, parts in enumerate(found):
            for one, other in zip(parts, expected[i % len(expected)]):
                assert one is None or one == other, (kind, split, i, other if isinstance(other, str) else "picture")
        print(f"{kind:10} {split:5} {len(expected)} pictures: bytes, labels, classes and names as in the folder")


for made in sys.argv[2:]:
    check(sys.argv[1], made)
