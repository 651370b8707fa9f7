"""Saving: whole or not at all, by suffix, and with a sentence when it fails."""

import errno
import os
import resource
import stat
from pathlib import Path

import pytest
from report import odd_reports, sample_report

from unitygain.report import Report

REPORT = sample_report.make_report(3)


@pytest.mark.parametrize(
    ("suffix", "start"), [(".html", "<!DOCTYPE html>"), (".json", '{"kind"'), (".txt", "unityg")]
)
def test_the_suffix_says_the_kind(tmp_path: Path, suffix: str, start: str) -> None:
    path = tmp_path / f"report{suffix}"
    assert REPORT.save(path) == path
    assert path.read_text("utf-8").startswith(start)
    assert os.listdir(tmp_path) == [path.name]


def test_a_json_file_reads_back(tmp_path: Path) -> None:
    path = REPORT.save(str(tmp_path / "a.JSON"))
    assert Report.from_json(path.read_bytes()) == REPORT


@pytest.mark.parametrize("name", ["report.pdf", "report", ".html/../x", "html"])
def test_another_suffix_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"the name must end in \.html, \.json, \.txt"):
        REPORT.save(tmp_path / name)


def test_hostile_text_can_be_saved(tmp_path: Path) -> None:
    for suffix in (".html", ".json", ".txt"):
        saved = odd_reports.make_hostile_report().save(tmp_path / f"x{suffix}")
        assert saved.stat().st_size > 1000


def test_a_directory_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "d.html").mkdir()
    with pytest.raises(
        IsADirectoryError, match=r"cannot write .*d\.html: Is a directory \(nothing was overwritten\)"
    ):
        REPORT.save(tmp_path / "d.html")


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No such file or directory \(nothing was overwritten\)"):
        REPORT.save(tmp_path / "no" / "r.html")


def test_a_file_in_the_place_of_a_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError, match="Not a directory"):
        REPORT.save(tmp_path / "file" / "r.html")


@pytest.mark.parametrize("name", ["nul\0.html", "x" * 300 + ".html"])
def test_an_impossible_name_is_an_os_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError, match="nothing was overwritten") as caught:
        REPORT.save(tmp_path / name)
    assert "\0" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_folder_without_permission_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError, match="Permission denied"):
        REPORT.save(tmp_path / "r.html")


def test_a_write_that_stops_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    path.write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match=r"File too large \(nothing was overwritten\)"):
            REPORT.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["r.html"]


def test_an_interrupt_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "r.txt"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        REPORT.save(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["r.txt"]


def test_the_mode_of_an_old_file_stays_and_a_link_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "real.html"
    path.write_text("old")
    path.chmod(0o640)
    link = tmp_path / "link.html"
    link.symlink_to(path)
    REPORT.save(link)
    assert link.is_symlink()
    assert path.read_text("utf-8").startswith("<!DOCTYPE")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_new_file_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        REPORT.save(tmp_path / "r.txt")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "r.txt").stat().st_mode) == 0o640
