"""The portal's configuration: what is read of it, what is refused, which files are taken."""

import re

import pytest

SECRET = "X-Goog-Signature=5ecre7"


def read(scripts, text):
    return scripts.portal.read_configuration(text)


def test_configurations_as_the_portal_writes_them(scripts, configuration, study):
    text = configuration.read_text()
    links, failed = read(scripts, text)
    assert [link.name for link in links] == [*study, "SCP1064/file_supplemental_info.tsv"]
    assert all(link.url.endswith((SECRET, "include_dirs=false")) for link in links)
    assert failed == []
    windows = re.sub(r'output="[^"]*"', lambda m: m[0].replace("/", "\\"), text)
    assert read(scripts, "\ufeff" + windows.replace("\n", "\r\n")) == (links, failed)
    gone = "# Error downloading SCP1064/x.csv.  Did you delete the file in the bucket?\n"
    assert read(scripts, gone + text) == (links, ["SCP1064/x.csv"])


@pytest.mark.parametrize(
    "output",
    [
        "../a", "a/../../b", "/etc/passwd", "..\\a", "C:\\a", "C:a", "a//b", "./a", "a/.", "",
        "a/", "a\0b", "~x/ ", "a.part", "a.csv.part.etag", "a\tb",
    ],
)  # fmt: skip
def test_paths_that_lead_astray_are_refused(scripts, output, tmp_path, server):
    text = f'url="{server.url("a")}"\noutput="{output}"\n'
    if output:  # an option without a value is refused as such
        with pytest.raises(scripts.error, match="no plain path"):
            read(scripts, text)
    path = tmp_path / "cfg.txt"
    path.write_text(text)
    before = sorted(tmp_path.rglob("*"))
    assert scripts.main(["portal", str(path), "--to", str(tmp_path / "data")]) == 1
    assert sorted(tmp_path.rglob("*")) == before
    assert server.asked == []


GOOD = 'url="https://example.org/a?k=v"\noutput="a"\n'
BAD = {
    "": "is empty",
    "<html>": "reports a fault",
    '{"error": "bad auth_code"}': "reports a fault",
    'curl -k "https://example.org/a" -o cfg.txt; curl -K cfg.txt': "the command",
    GOOD + 'header="Authorization: Bearer 5ecre7"': "Line 3 .* is no url",
    GOOD + "-k": "Line 3 .* is no url",
    GOOD + 'create-dirs = "5ecre7"': "Line 3 .* is no url",
    GOOD + "output": "Line 3 .* is no url",
    GOOD + 'output="b"': "Line 3 .* is no url",
    GOOD + 'url="https://example.org/5ecre7': "Line 3 .* is no url",
    GOOD + 'url="https://example.org/5ecre7"': "cut short",
    GOOD + 'url="https://example.org/5ecre7"\nurl="https://example.org/b"': "Line 4 .* is no url",
    GOOD + 'url="https://example.org/5ecre7"\noutput="A"': "writes 'A' twice",
    'url="http://example.org/5ecre7"\noutput="a"': "is http, not https",
}


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_configuration_is_refused_without_quoting_it(scripts, text):
    with pytest.raises(scripts.error, match=BAD[text]) as caught:
        read(scripts, text)
    assert "5ecre7" not in str(caught.value)


def test_which_files_are_taken(scripts, configuration, study, needed):
    links, _ = read(scripts, configuration.read_text())
    choose = scripts.portal.choose
    chosen, missing = choose(links)
    assert ([link.name for link in chosen], missing) == (needed, [])
    subsets = [link.name for link in choose(links, subsets=True)[0]]
    assert set(subsets) - set(needed) == {name for name in study if "subset" in name}
    assert "SCP1064/other/RNA_expression.csv.gz" not in subsets
    without = [link for link in links if not link.name.endswith("expression.csv.gz")]
    chosen, missing = choose([link for link in without if "metadata" not in link.name])
    assert "SCP1064/expression/RNA_expression_subset2.csv.gz" in [link.name for link in chosen]
    assert missing == ["RNA_metadata.csv", "raw_CITE_expression.csv"]
    assert [link.name for link in choose(links, patterns=["*else*"])[0]] == [list(study)[-1]]
    assert len(choose(links, patterns=["*"])[0]) == len(study)
    with pytest.raises(scripts.error, match="No file matches '\\*zip'"):
        choose(links, patterns=["*else*", "*zip"])
    with pytest.raises(scripts.error, match="another study"):
        choose(links[-1:])
