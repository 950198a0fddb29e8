#!/usr/bin/env python3
"""Makes tests/dataset/folders.json: folders of data files, and which files the package `datasets` takes from each, by
configuration and split, in which order.

usage: make_folders.py OUT.json    (needs datasets; written with 5.2)
"""
import json
import os
import shutil
import sys
import tempfile

import datasets
from datasets import load_dataset_builder

FOLDERS = [
    {"name": "sharded", "files": ["data/train-00001-of-00002.jsonl", "data/train-00000-of-00002.jsonl",
                                  "data/test-00000-of-00001.jsonl", "data/odd_one-00000-of-00001.jsonl",
                                  "data/other.jsonl", "extra/train.jsonl"]},
    {"name": "words in files", "files": ["my_train_file.jsonl", "train-2.jsonl", "train.jsonl", "a-dev.jsonl", "sub/valid.jsonl",
                                         "test_1.jsonl", "contest.jsonl", "trainer.jsonl", "evaluation 3.jsonl"]},
    {"name": "words in folders", "files": ["train/b.jsonl", "train/a.jsonl", "train/deep/z.jsonl", "my-val/x.jsonl",
                                           "testing/t.jsonl", "train.jsonl", "other/o.jsonl"]},
    {"name": "no words", "files": ["b.jsonl", "a/c.jsonl", "a/b.jsonl", "Z.jsonl", ".hidden.jsonl", ".git/x.jsonl",
                                   "__pycache__/y.jsonl"]},
    {"name": "only tests", "files": ["gsm_test.jsonl", "notes.jsonl"]},
    {"name": "one config", "files": ["a.jsonl", "data/b-1.jsonl", "data/b-2.jsonl", "data/deep/b-3.jsonl"],
     "readme": "---\nlicense: mit\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/b-*\n"
               "  - split: extra\n    path:\n    - a.jsonl\n    - data/**/b-3.jsonl\n---\n# Words\n"},
    {"name": "several configs", "files": ["en/train.jsonl", "en/test.jsonl", "fr/train.jsonl", "fr/all/part.jsonl", "both.jsonl"],
     "readme": "---\nconfigs:\n- config_name: en\n  data_dir: en\n- config_name: fr\n  default: true\n  data_files: fr/**\n"
               "- config_name: flat\n  data_files: [both.jsonl, en/test.jsonl]\n"
               "- {config_name: star, data_files: '*/train.jsonl'}\n---\n"},
    {"name": "a card without configs", "files": ["train.jsonl"], "readme": "---\npretty_name: x\n---\nconfigs: no\n"},
]


def made(folder, parent):
    root = os.path.join(parent, folder["name"])
    for name in folder["files"]:
        path = os.path.join(root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as out:
            out.write(json.dumps({"file": name}) + "\n")
    if "readme" in folder:
        with open(os.path.join(root, "README.md"), "w") as out:
            out.write(folder["readme"])
    return root


def main():
    parent = tempfile.mkdtemp()
    for folder in FOLDERS:
        root = made(folder, parent)
        try:
            names = datasets.get_dataset_config_names(root)
        except Exception:
            names = ["default"]
        folder["configs"] = {}
        for name in names:
            files = load_dataset_builder(root, name).config.data_files
            folder["configs"][name] = {str(split): [os.path.relpath(file, root) for file in files[split]] for split in files}
        folder["default"] = load_dataset_builder(root).config.name
    shutil.rmtree(parent)
    with open(sys.argv[1], "w") as out:
        json.dump(FOLDERS, out, indent=1)
        out.write("\n")


main()
