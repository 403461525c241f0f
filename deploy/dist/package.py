"""What is made of the programs of build.sh: an archive for each architecture, an image layout for both, the Helm chart, and
the bill of materials. The same inputs give the same bytes.

    python3 deploy/dist/package.py BUILT OUT     SOURCE_DATE_EPOCH is the time of everything in them
"""

import datetime
import gzip
import hashlib
import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import uuid

from links import mended

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PACKAGE = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]
VERSION = PACKAGE["version"]
EPOCH = int(os.environ["SOURCE_DATE_EPOCH"])
CREATED = datetime.datetime.fromtimestamp(EPOCH, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
# By the name that images have for each.
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
# Of Debian's package ca-certificates as it is shipped, not what this machine trusts besides.
CERTIFICATES = pathlib.Path("/usr/share/ca-certificates/mozilla")
BESIDE = ["README.md", "README.pt-BR.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE", "config/anteroom.toml",
          "config/anteroom.service", "docs", "dashboards"]  # fmt: skip


def tar(files):
    """An uncompressed archive of names and bytes, with the folders that they are in."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        folders = {str(folder) for name in files for folder in pathlib.PurePath(name).parents if str(folder) != "."}
        for name in sorted(folders | set(files)):
            entry = tarfile.TarInfo(name)
            entry.mtime = EPOCH
            if name in folders:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(entry)
            else:
                content, entry.mode = files[name]
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def zipped(data):
    return gzip.compress(data, compresslevel=9, mtime=0)


def program(built, arch):
    return (built / arch / "anteroom").read_bytes(), 0o755


def archive(built, out, arch):
    """For who wants no package: the program and what goes with it."""
    files = {"anteroom": program(built, arch)}
    for name in BESIDE:
        path = ROOT / name
        for file in [path] if path.is_file() else [it for it in sorted(path.rglob("*")) if it.is_file()]:
            files[str(file.relative_to(ROOT))] = file.read_bytes(), 0o644
    folders = {str(folder) for name in files for folder in pathlib.PurePath(name).parents}
    for name in [it for it in files if it.endswith(".md")]:
        text = mended(files[name][0].decode(), name, lambda file: file in files or file in folders)
        files[name] = text.encode(), 0o644
    for folder in ("man", "completions"):
        files |= {f"{folder}/{it.name}": (it.read_bytes(), 0o644) for it in (built / folder).iterdir()}
    top = f"anteroom-{VERSION}-{arch}-linux"
    (out / f"{top}.tar.gz").write_bytes(zipped(tar({f"{top}/{name}": it for name, it in files.items()})))


class Layout:
    """An OCI image layout (image-spec 1.0) in a folder."""

    def __init__(self, folder):
        self.blobs = folder / "blobs/sha256"
        self.blobs.mkdir(parents=True)
        (folder / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))

    def blob(self, kind, data, **more):
        """Keeps it, and describes it."""
        data = data if isinstance(data, bytes) else json.dumps(data, sort_keys=True).encode()
        digest = hashlib.sha256(data).hexdigest()
        (self.blobs / digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data), **more}


def labels():
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True)
    return {
        "org.opencontainers.image.title": "anteroom",
        "org.opencontainers.image.description": PACKAGE["description"],
        "org.opencontainers.image.version": VERSION,
        "org.opencontainers.image.revision": commit.stdout.strip(),
        "org.opencontainers.image.created": CREATED,
        "org.opencontainers.image.licenses": PACKAGE["license"],
    }


def image(built, out):
    """The same as the Dockerfile makes: the program and certificates, and nothing else. Its HEALTHCHECK has no place in this
    form; who runs it asks `/anteroom ready`."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        fill(Layout(folder), built, folder)
        files = {str(it.relative_to(folder)): (it.read_bytes(), 0o644) for it in folder.rglob("*") if it.is_file()}
    (out / f"anteroom-{VERSION}-oci.tar").write_bytes(tar(files))


def fill(layout, built, folder):
    certificates = sorted(CERTIFICATES.glob("*.crt"))
    assert len(certificates) > 100, f"{CERTIFICATES}: install ca-certificates"
    bundle = b"".join(it.read_bytes() for it in certificates)
    about, manifests = labels(), []
    for arch, ours in ARCHITECTURES.items():
        content = tar({"anteroom": program(built, ours), "etc/ssl/certs/ca-certificates.crt": (bundle, 0o644)})
        config = {
            "created": CREATED,
            "architecture": arch,
            "os": "linux",
            "config": {
                "User": "65532:65532",
                "ExposedPorts": {"8080/tcp": {}},
                "Env": ["PATH=/"],
                "Entrypoint": ["/anteroom"],
                "Cmd": ["serve"],
                "WorkingDir": "/",
                "StopSignal": "SIGTERM",
                "Labels": about,
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(content).hexdigest()}"]},
            "history": [{"created": CREATED, "created_by": "deploy/dist/package.py"}],
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": layout.blob("config.v1+json", config),
            "layers": [layout.blob("layer.v1.tar+gzip", zipped(content))],
            "annotations": about,
        }
        manifests.append(layout.blob("manifest.v1+json", manifest, platform={"architecture": arch, "os": "linux"}))
    index_kind = "index.v1+json"
    both = {"schemaVersion": 2, "mediaType": f"application/vnd.oci.image.{index_kind}", "manifests": manifests,
            "annotations": about}  # fmt: skip
    named = layout.blob(index_kind, both, annotations={"org.opencontainers.image.ref.name": VERSION})
    index = {"schemaVersion": 2, "mediaType": f"application/vnd.oci.image.{index_kind}", "manifests": [named]}
    (folder / "index.json").write_text(json.dumps(index, sort_keys=True))


def chart(out):
    """The Helm chart, with what its links lead to."""
    folder = ROOT / "deploy/helm/anteroom"
    files = {f"anteroom/{it.relative_to(folder)}": (it.read_bytes(), 0o644) for it in folder.rglob("*") if it.is_file()}
    (out / f"anteroom-chart-{VERSION}.tgz").write_bytes(zipped(tar(files)))


def bill(out):
    """Every crate that is in the programs, or that made them, as CycloneDX 1.5."""
    arguments = ["cargo", "metadata", "--format-version=1", "--locked"]
    targets = [f"--filter-platform={arch}-unknown-linux-musl" for arch in ARCHITECTURES.values()]
    read = subprocess.run([*arguments, *targets], cwd=ROOT, check=True, capture_output=True)
    metadata = json.loads(read.stdout)
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    checksums = {(it["name"], it["version"]): it.get("checksum") for it in lock}
    packages = {it["id"]: it for it in metadata["packages"]}
    nodes = {it["id"]: it for it in metadata["resolve"]["nodes"]}
    ours = next(it for it in packages.values() if it["name"] == "anteroom")

    def needs(package):
        """What is not for tests alone."""
        is_shipped = lambda it: any(kind["kind"] != "dev" for kind in it["dep_kinds"])
        return sorted(it["pkg"] for it in nodes[package]["deps"] if is_shipped(it))

    reached, waiting = set(), [ours["id"]]
    while waiting:
        package = waiting.pop()
        if package not in reached:
            reached.add(package)
            waiting.extend(needs(package))

    def name_of(package):
        return f"pkg:cargo/{packages[package]['name']}@{packages[package]['version']}"

    def component(package, kind="library"):
        it = packages[package]
        found = {"type": kind, "bom-ref": name_of(package), "name": it["name"], "version": it["version"],
                 "purl": name_of(package), "description": " ".join((it["description"] or "").split())}  # fmt: skip
        if it["license"]:
            found["licenses"] = [{"expression": it["license"].replace("/", " OR ")}]
        if checksum := checksums[it["name"], it["version"]]:
            found["hashes"] = [{"alg": "SHA-256", "content": checksum}]
        return found

    libraries = sorted(reached - {ours["id"]}, key=name_of)
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"timestamp": CREATED, "component": component(ours["id"], "application")},
        "components": [component(it) for it in libraries],
        "dependencies": [
            {"ref": name_of(it), "dependsOn": sorted(set(map(name_of, needs(it))))} for it in [ours["id"], *libraries]
        ],
    }
    content = json.dumps(document, sort_keys=True)
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}"
    (out / f"anteroom-{VERSION}.cdx.json").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


def main():
    built, out = map(pathlib.Path, sys.argv[1:])
    for arch in ARCHITECTURES.values():
        archive(built, out, arch)
    image(built, out)
    chart(out)
    bill(out)


main()
