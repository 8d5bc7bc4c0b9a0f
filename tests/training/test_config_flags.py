"""Flags that are true or false, on the command line of tools/train.py."""
import argparse

from gluonzoo.training import config

import pytest


def parse(*words):
    parser = argparse.ArgumentParser()
    config.add_arguments(parser)
    return vars(parser.parse_args(words))


def test_alone_or_with_a_value():
    assert parse("--auto-scale-lr", "--epochs", "3") == {"auto_scale_lr": True, "epochs": "3"}
    assert parse("--auto-scale-lr", "false", "--decay-bias-and-norm", "True") == {"auto_scale_lr": False,
                                                                              "decay_bias_and_norm": True}
    assert parse() == {}


def test_anything_else_is_refused(capsys):
    with pytest.raises(SystemExit):
        parse("--auto-scale-lr", "maybe")
    assert "'maybe' is not true or false" in capsys.readouterr().err
