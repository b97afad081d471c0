#!/usr/bin/env python3
"""Writes tests/data/shards with the tools that others use: webdataset, GNU tar, Python's tarfile, TensorFlow, the tfrecord
package, lmdb with Caffe's Datum. expected.txt lists what a reader must find.
    pip install webdataset tensorflow-cpu tfrecord lmdb grpcio-tools crc32c pillow numpy
    tools/make_shards.py [OUT]
"""
import importlib.util
import io
import os
import subprocess
import sys
import tempfile

import crc32c
import lmdb
import numpy as np
import webdataset
from grpc_tools import protoc
from PIL import Image

OUT = sys.argv[1] if len(sys.argv) > 1 else "tests/data/shards"
NAMES = ["crack", "dent", "pit"]
expected = []


def pixels(i, channels=3):
    y, x, c = np.mgrid[0:6, 0:8, 0:channels]
    return ((x * 20 + y * 9 + c * 50 + i * 31) % 256).astype(np.uint8)


def encoded(i, kind):
    out = io.BytesIO()
    Image.fromarray(pixels(i)).save(out, kind)
    return out.getvalue()


def expect(shard, path, label, name, picture):
    expected.append(f"{shard}\t{path}\t{label}\t{name}\t{len(picture)}\t{crc32c.crc32c(picture):08x}")


def path(name):
    return os.path.join(OUT, name)


def write_webdataset():
    with webdataset.TarWriter(path("webdataset.tar")) as sink:
        for i in range(3):
            picture = encoded(i, "JPEG")
            sink.write({"__key__": f"{i:06d}", "jpg": picture, "cls": i})
            expect("webdataset.tar", f"{i:06d}.jpg", i, "-", picture)
    with webdataset.TarWriter(path("webdataset_json.tar")) as sink:
        for i in range(3):
            picture = encoded(i, "PNG")
            sink.write({"__key__": f"part.1/{i:04d}", "png": picture, "json": {"label": i, "class": NAMES[i]}})
            expect("webdataset_json.tar", f"part.1/{i:04d}.png", i, NAMES[i], picture)


def write_tars():
    long = "a_folder_with_a_rather_long_name/" * 4 + "sample_%d"
    with tempfile.TemporaryDirectory() as folder:
        members = []
        for i in range(2):
            for end, data in (("cls", NAMES[i].encode()), ("png", encoded(i, "PNG"))):
                name = long % i + "." + end
                os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
                with open(os.path.join(folder, name), "wb") as file:
                    file.write(data)
                members.append(name)
        for kind in ("gnu", "pax", "ustar"):
            shard = f"{kind}.tar"
            subprocess.run(["tar", f"--format={kind}", "-cf", os.path.abspath(path(shard)), "-C", folder, *members],
                           check=True)
            for i in range(2):
                expect(shard, long % i + ".png", "-", NAMES[i], encoded(i, "PNG"))


def write_tensorflow():
    import tensorflow as tf

    def text(value):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    def number(value):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    with tf.io.TFRecordWriter(path("tensorflow.tfrecord")) as writer:
        for i in range(3):
            picture = encoded(i, "JPEG")
            writer.write(tf.train.Example(features=tf.train.Features(feature={
                "image/height": number(6), "image/width": number(8), "image/colorspace": text(b"RGB"),
                "image/channels": number(3), "image/class/label": number(i + 1),
                "image/class/synset": text(b"n0000000%d" % i), "image/class/text": text(NAMES[i].encode()),
                "image/object/bbox/xmin": tf.train.Feature(float_list=tf.train.FloatList(value=[0.25, 0.5])),
                "image/format": text(b"JPEG"), "image/filename": text(b"n_%d.JPEG" % i),
                "image/encoded": text(picture)})).SerializeToString())
            expect("tensorflow.tfrecord", f"n_{i}.JPEG", i + 1, NAMES[i], picture)


def write_tfrecord_package():
    import tfrecord

    writer = tfrecord.TFRecordWriter(path("package.tfrecord"))
    for i in range(2):
        picture = encoded(i, "PNG")
        writer.write({"image": (picture, "byte"), "label": (i, "int")})
        expect("package.tfrecord", f"record {i}", i, "-", picture)
    writer.close()


CAFFE = """syntax = "proto2";
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


def datum_class():
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "caffe.proto"), "w") as file:
            file.write(CAFFE)
        assert protoc.main(["protoc", f"-I{folder}", f"--python_out={folder}", "caffe.proto"]) == 0
        spec = importlib.util.spec_from_file_location("caffe_pb2", os.path.join(folder, "caffe_pb2.py"))
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.Datum


def pnm(image):
    height, width, channels = image.shape
    return b"P%d\n%d %d\n255\n" % (6 if channels == 3 else 5, width, height) + image.tobytes()


def write_lmdb():
    datum_type = datum_class()
    with tempfile.TemporaryDirectory() as folder:
        environment = lmdb.open(folder, map_size=1 << 20)
        with environment.begin(write=True) as transaction:
            for i in range(4):
                datum = datum_type(label=i % 3, height=6, width=8)
                if i == 0:  # encoded, small: within the leaf
                    picture = datum.data = encoded(i, "PNG")
                    datum.encoded = True
                elif i == 1:  # encoded, large: in overflow pages
                    picture = datum.data = encoded(i, "PNG") + bytes(5000)
                    datum.encoded = True
                else:  # raw: planes blue, green, red; then grey
                    image = pixels(i, 3 if i == 2 else 1)
                    datum.channels = image.shape[2]
                    datum.data = np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1)).tobytes()
                    picture = pnm(image)
                transaction.put(b"%08d_c/%d.png" % (i, i), datum.SerializeToString())
                expect("caffe.mdb", f"c/{i}.png", i % 3, "-", picture)
        environment.close()
        os.replace(os.path.join(folder, "data.mdb"), path("caffe.mdb"))
        environment = lmdb.open(folder, map_size=1 << 22)  # 200 keys: branch pages
        with environment.begin(write=True) as transaction:
            for i in range(200):
                datum = datum_type(label=i, data=b"picture %d" % i, encoded=True)
                transaction.put(b"%08d" % ((i * 77) % 200), datum.SerializeToString())
        environment.close()
        os.replace(os.path.join(folder, "data.mdb"), path("branches.mdb"))


PARTS = {"webdataset": write_webdataset, "tar": write_tars, "tensorflow": write_tensorflow,
         "package": write_tfrecord_package, "lmdb": write_lmdb}
os.makedirs(OUT, exist_ok=True)
if len(sys.argv) > 2:
    PARTS[sys.argv[2]]()
    with open(path("expected.txt"), "a") as file:
        file.write("".join(line + "\n" for line in expected))
else:  # TensorFlow and the tfrecord package do not go together in one process
    open(path("expected.txt"), "w").close()
    for part in PARTS:
        subprocess.run([sys.executable, sys.argv[0], OUT, part], check=True)
