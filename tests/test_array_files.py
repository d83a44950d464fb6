"""Files of arrays are listed by their headers alone, and held against their length."""

from __future__ import annotations

import base64
import io
import json
import struct
import zipfile
import zlib
from typing import Any

import numpy as np
import pytest

from safepickle.storage.array_files import list_arrays
from safepickle.storage.contents import CannotListError, Contents, StoredArray, numpy_dtype
from safepickle.storage.formats import look_at


def contents(data: bytes, start: int = 0) -> Contents:
    file = io.BytesIO(data)
    form = look_at(file, start)
    assert form is not None
    listed = list_arrays(file, form, start)
    assert listed is not None
    return listed


def read(array: StoredArray) -> bytes:
    assert array.read is not None
    return array.read()


def safetensors(entries: dict[str, Any], data: bytes) -> bytes:
    header = json.dumps(entries).encode()
    return struct.pack("<Q", len(header)) + header + data


def npz(save: Any = np.savez, **arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_safetensors_are_listed_and_read():
    weights = np.arange(6, dtype="f4").reshape(2, 3)
    data = weights.tobytes() + b"\1\0"
    listed = contents(
        safetensors(
            {"__metadata__": {"format": "pt"}, "w": entry("F32", [2, 3], 0, 24), "b": entry("BF16", [1], 24, 26)}, data
        )
    )
    assert listed.facts == {"format": "pt"}
    assert [(name, array.dtype, array.shape, array.nbytes) for name, array in listed.arrays.items()] == [
        ("w", "float32", (2, 3), 24),
        ("b", "bfloat16", (1,), 2),
    ]
    assert [read(array) for array in listed.arrays.values()] == [data[:24], data[24:]]


@pytest.mark.parametrize(
    ("entries", "data", "said"),
    [
        ({"w": entry("F32", [2], 0, 8)}, bytes(4), "claim 8 bytes, and 4"),
        ({"w": entry("F32", [3], 0, 8)}, bytes(8), "not as many bytes"),
        ({"w": entry("F32", [2], 0, 8), "v": entry("F32", [2], 4, 12)}, bytes(12), "overlap"),
        ({"w": entry("F32", [2], 4, 12)}, bytes(12), "leave bytes out"),
        ({"w": entry("F32", [-2], 0, 8)}, bytes(8), "malformed"),
        ({"w": 1}, b"", "malformed"),
        ({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, "8"]}}, bytes(8), "malformed"),
    ],
)
def test_safetensors_that_contradict_themselves_are_not_listed(entries: Any, data: bytes, said: str):
    with pytest.raises(CannotListError, match=said):
        contents(safetensors(entries, data))


@pytest.mark.parametrize("header", [b'{"a":1,"a":2}', b"{" * 9_000, b'{"a":' * 9_000, b"{'a': 1}", b'{"a": 1}'[:-1]])
def test_headers_that_two_readers_could_read_in_two_ways_are_not_listed(header: bytes):
    with pytest.raises(CannotListError, match="no JSON as it should be"):
        contents(struct.pack("<Q", len(header)) + header)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_are_listed_and_read(save: Any):
    arrays = {
        "ones": np.ones((3, 4)),
        "fortran": np.asfortranarray(np.arange(6, dtype="i2").reshape(2, 3)),
        "flags": np.array([True, False]),
        "big": np.arange(3, dtype=">f4"),
        "texts": np.array(["a", "bc"]),
        "nothing": np.zeros((0, 3), "c8"),
        "scalar": np.array(7, "u1"),
        "pairs": np.zeros(2, [("a", "i4"), ("b", "f8")]),
        "objects": np.array([None, {}], dtype=object),
        "records": np.array([(1, [{}])], [("a", "i4"), ("b", [("c", "O", (1,))])]),
    }
    listed = contents(npz(save, **arrays)).arrays
    assert [listed[name].dtype for name in arrays] == [
        "float64", "int16", "bool", ">f4", "U2", "complex64", "uint8", "structured (2 fields)", "object", "object",
    ]  # fmt: skip
    for name, array in arrays.items():
        found = listed[name]
        assert (found.shape, found.order) == (array.shape, "F" if name == "fortran" else "C")
        if name in ("objects", "records"):
            assert found.read is None
        else:
            assert read(found) == array.tobytes(order="A")
            assert found.nbytes == array.nbytes


def test_npy_is_listed_wherever_it_begins_in_a_file():
    array = np.arange(6.0).reshape(2, 3)
    found = contents(b"before" + npy(array), 6).arrays[""]
    assert (found.dtype, found.shape, read(found)) == ("float64", (2, 3), array.tobytes())


@pytest.mark.parametrize("damage", ["cut off", "shape", "code", "nested"])
def test_npy_that_contradicts_itself_is_not_listed(damage: str):
    data = npy(np.arange(6.0))
    damaged = {
        "cut off": data[:-3],
        "shape": data.replace(b"(6,)", b"(7,)"),
        "code": data.replace(b"(6,)", b"f() "),
        "nested": data[:10] + (b"(" * 500).ljust(len(data) - 10),
    }[damage]
    with pytest.raises(CannotListError, match=r"malformed|claims"):
        contents(damaged)


def test_members_that_could_unpack_to_very_much_at_once_are_not_read():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.npy", npy(np.zeros(1000)))
    with pytest.raises(CannotListError, match="compressed in an unusual way"):
        contents(file.getvalue())


def test_damage_of_a_member_is_seen_where_it_is_read():
    values = np.arange(10_000.0)
    data = npz(a=values)
    place = data.index(values.tobytes()) + 40_000
    listed = contents(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    with pytest.raises(CannotListError, match=r"damaged: Bad CRC-32"):
        read(listed.arrays["a"])


@pytest.mark.parametrize("write", ["npy", "npz", "compressed"])
def test_an_array_is_read_in_parts_forward_and_back(write: str):
    values = np.arange(50_000.0)
    file = io.BytesIO()
    {"npy": np.save, "npz": lambda f, a: np.savez(f, a=a), "compressed": lambda f, a: np.savez_compressed(f, a=a)}[
        write
    ](file, values)
    (found,) = contents(file.getvalue()).arrays.values()
    assert found.read is not None
    parts = [found.read(start, 70_001) for start in range(0, 400_000, 70_001)]
    assert b"".join(parts) == values.tobytes()
    assert found.read(8, 16) == values[1:3].tobytes()
    assert found.read(399_992) == values[-1:].tobytes()


def test_formats_without_arrays_are_not_listed():
    file = io.BytesIO(b"<html></html>")
    form = look_at(file)
    assert form is not None
    assert list_arrays(file, form) is None


def test_element_types_have_the_names_that_torch_and_numpy_give_them():
    codes = {"<f4": "float32", "f2": "float16", "|b1": "bool", "<M8[ns]": "<M8[ns]", "|S5": "S5", "|O": "object"}
    assert {code: numpy_dtype(code) for code in codes} == codes


def unpacked(text: str) -> bytes:
    return zlib.decompress(base64.b85decode(text))


# Written by h5py 3.16: with its own defaults, with a link to another file in each group, and with libver="latest".
SYMBOL_TABLES = unpacked(
    "c-rk-K~EDw6rS03%R(V82?jJ6dJ>dIC=@91K#3H4AVNeFPNqw{2(i+JE&_>(96Vsc(E|q#96Wf?!~;i7JbI9uS8p6V_yatc;O@@6?e5TS5na-S"
    "`4aM&na9q|x9`1~oq4=UPfWHnU2Q@JBnbtPjO;j~h~9RVp*=$-rgDqQw*u5-Wc=De>s#sbS-l7MQz@it9x;G^euaok(sKVzBGZWDA|Ra_pE2YI"
    "T3)1b^G4aua0NSi9VO-cTc_(6BazrPhBD~^V^TrQ*OCFf-Dqizbm_iiAcEQ@)c%6Di%2rt1wk+$AkpUqa6eJkYn<4svp2ChX1HNBzB6<dn<2Yj"
    "<Enn0q|=qTiC<{Ho}*>3r@fF<ub;{ov)&|6+3)PV=?RQNmfh_(x$DFDiaqXn;Jt~UbDXSSBu=<~Li-oNsmI1O;GyIC*}gx*qhQTD5^&cCzPB2="
    "?Yplt#LzHVCam`^F!oYjcVx3pZiG6y#(J|uEk4M`_j(~jIL?XWn0r9y$XtU2QYTB$CZWmkso9jd{ya><A64h#UD(NLeXhN@HX&s5aYfgZsR>|P"
    "SSk~M7y>>uS6+s9>e^|HSaZ-^esy>6Oiy9kG_Xz2fHI$TI1L1?`GtHz(PG2!+|QSIK;q!w;Nalk;Nalk;Nak>R~QGnZkIJ8)f26A0eWbLs+^Mq"
    "$U#vUMa(j`ox2#<A31d)uV|`ugl3(m2*USk<*sa}N{eU8hjICWD_p*WtLV2dhsUDDD+dP$2L}hodByspY{s}85sjTr$kV)+26}f#elY6kMz#%D"
    "84|m-!mx>9HRn8~2J#d-m@QGd+o{*5YT3S`QYx+GsGfWN&<}by1+vWJ7@d0(#lt9m6sXMOabA*L&Joqw9p+!#6`Aj4T33Dk>%HVJocGzyG&92J"
    "w@ug1X&XfqRlg#|HoJqXMKYEdPkG5J8|q34A^n5mu~9A+7BthIXoIG%o8_XCeWL27l`j;EM!B%6m6mcUT3udSS<*Ch89p?W{4-U5-cx0H!(p%g"
    "I8Ku95w!Ag4m#cS!C$~S;k`x}JxHs0AFkntRA#!*!{=(P>wMYDYk*kb9s{<cm80mMuXw4I3molp+R)+X|FLZje}K&ehR7Tr^|oJ#ec)Zsd)@UR"
    "nMUhBS&ZC{x$A+wzZu|h&l&e##{3-juxGsN4)~cD!82a=2mQ=Tz%yRH#{JAo&@)~Rhy2Wo=ov4+hyBb;$TMEr5`N~T!82Z>qkiUv9X0zuDX=XY"
    "g#9R$G<YD$FCL*X!L0uoPxq~&^^N^;&|M$q^)2qM2jl-a<gS;5_&jp5Z~M+feZK!c82b07"
)
LINK_MESSAGES = unpacked(
    "c-rk)O-NKx6h8OOkI&K38GYKMMH5BXBFDc`3m22k46}$Foq<{;7&(lB8K|KPiwYM8F2Y^mqQIbKi-Lj(YE>bvgjOwtXp_s(MS|V;?m3h1InGG>"
    "z(?<FzH{$A+@EvL&pr1+A{zI4>O7#5EQ1q#u$4BE){g1hG(LdH5N8peOVlrGV*%{<;ruhDqCJKE>AqM@mEJTEt@Fz*PzIa+M@q!bCsn+Xvm-$t"
    "CB58aW;i=EF`l!>#2(jW;1Y8&Y70wdOmxulgbqHgj`)L>*yjU}3p|xL?m~Z%B#8-o7V|k+lT%1I4Lg`USQpU+5e7`>(|){-tGM-P_wIbUOSXO5"
    "_UY|Dz2Mf%H5qcuUVS=ssVB;`%p|DIsh{6y$2RRwk3om6lYb$46D@m1J7O63V9p?NQx1X>Om}U%q~V637?&fZnUV3#<WOcTQvndlOk595H4cR#"
    "bS-~wlXZUJ;QLZ}pG+}2QY43!m*tP>Pb_sGjOXBdZ`NtAKK_XOCheHtlnV3<Y%c}&Cw|#vt^D=^+eySD0eUl%g{{^Jyi;Gu@4--;?L>d)&2O1o"
    ";>XRgK^_|hm9p(|-I?>^jnZQA3-e}WVL95>M3G~Vzs&iqegFF(Uq^gaj<3u#z0CNntQW~Ny)0B&SuYOL^zyRW%6f5{rk5qf%6f5`rkC$ER@RH#"
    "G`(!pT3Ih8rs+iqSXnQ|UDN+dGhz#3EB&7!h7sElI}ke!`G3IF{|FZ}V0*EuusogXZFONe+W)drSdQxU)tVx80mbn{2lM{psZ<OWu@qrh29H$c"
    "@Vkl=)_#x2`w~gb>7}iO6xBvqG*3GCwy*tMRkrIaE$LsrL5^!jsqftA?YZuBBFYVx%c%v}V8dEHtwF0~OG1%&ic3M38DG)H^^!29)lOnW!I}~w"
    "hqX6;2D;N1<KP-qz5=MWS`MF{eN&)UV}EScoP?OhuHO$g!Yz%Remegcj%#c~@7-5$Mq^oj&l@<avGXez-orhu%4_`MU4eeB_wvH$br{yz(;rSf"
    "wEqMSh$keX-MLQ(m445AUo&7$RO)lSnaX+2w@}H>`Bo~+Ip0Phmh)i>qnvN2P|5iY3WuEUq>#tth*SNV%=0U0llk-qD(>Vn"
)
LATEST = unpacked(
    "c-rgqaB<`1lHy|K;9!7(|4?w85yCfsiZiXdo9FN062!z%!6byN5C*uI7=T*Xco={bW8!9*c^(W@11UwRUSKBxEns8;IteJo%)`Ja0CYXX0}c$V"
    "KvytxaR6P&%(x%w1-R!<Fbo@zu(iSt>OBSk6h9_;"
)


def test_hdf5_is_listed_and_read():
    listed = contents(SYMBOL_TABLES)
    arrays = listed.arrays
    assert {name: (array.dtype, array.shape) for name, array in arrays.items() if "many" not in name} == {
        "flag": ("bool", ()),
        "halves": ("bfloat16", (2,)),
        "layers/0": ("float32", (2,)),
        "layers/1": (">i2", (1, 2)),
        "outside": ("float32", (2,)),
        "packed": ("uint8", (5,)),
        "text": ("object (of varying length)", ()),
        "unwritten": ("float64", (1000,)),
    }
    assert [name for name in arrays if "many" in name] == [f"many/{number}" for number in range(9)]
    assert {name for name, array in arrays.items() if array.read is None} == {"outside", "packed", "text", "unwritten"}
    assert read(arrays["layers/0"]) == np.array([1, 2], "f4").tobytes()
    assert read(arrays["layers/1"]) == np.array([1, 2], ">i2").tobytes()
    assert [read(arrays[f"many/{number}"]) for number in range(9)] == [
        bytes([number]) + bytes(7) for number in range(9)
    ]
    assert listed.notes == [
        "soft is a link, and was not followed",
        "outside says that its elements lie in another file, which was not read",
    ]
    assert listed.complete


def test_hdf5_in_newer_layouts_is_listed_in_part_and_says_so():
    listed = contents(LINK_MESSAGES)
    assert list(listed.arrays) == ["weights/0"]
    assert listed.notes == [
        "elsewhere is a link, and was not followed",
        "the members of ordered are in a layout of HDF5 that is not listed",
    ]
    assert not listed.complete
    listed = contents(LATEST)
    assert (listed.arrays, listed.notes) == ({}, ["it is written in a layout of HDF5 that is not listed"])


@pytest.mark.parametrize("whole", [SYMBOL_TABLES, LINK_MESSAGES])
def test_damaged_hdf5_ends_in_an_error_of_its_own(whole: bytes):
    for length in range(8, len(whole), 97):
        with pytest.raises(CannotListError, match=r"cut off|superblock"):
            contents(whole[:length])
    random = np.random.default_rng(0)
    failed = 0
    for _ in range(300):
        data = bytearray(whole)
        for place in random.integers(8, len(data), 20):
            data[place] = random.integers(256)
        try:
            contents(bytes(data))
        except CannotListError:
            failed += 1
    assert failed > 30


CONFIG = {
    "module": "keras",
    "class_name": "Sequential",
    "config": {
        "layers": [
            {"module": "keras.layers", "class_name": "Dense", "config": {}},
            {"module": "keras.layers", "class_name": "Dense", "config": {}},
            {
                "module": "keras.layers",
                "class_name": "Lambda",
                "config": {"function": {"class_name": "__lambda__", "config": {"code": "4w=="}}},
            },
            {"module": "app.layers", "class_name": "Gate", "config": {}, "registered_name": "app>Gate"},
        ]
    },
    "compile_config": {"optimizer": {"module": "keras.optimizers", "class_name": "Adam", "config": {}}},
}


def keras_archive(replaced: dict[str, bytes] = {}, compression: int = zipfile.ZIP_STORED) -> bytes:  # noqa: B006
    members = {
        "metadata.json": json.dumps({"keras_version": "3.15.1", "date_saved": "2026-01-01@10:00:00"}).encode(),
        "config.json": json.dumps(CONFIG).encode(),
        "model.weights.h5": SYMBOL_TABLES,
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in (members | replaced).items():
            archive.writestr(name, data)
    return file.getvalue()


def test_keras_archives_are_listed_with_what_would_run():
    listed = contents(keras_archive())
    assert read(listed.arrays["layers/0"]) == np.array([1, 2], "f4").tobytes()
    assert listed.facts == {
        "keras version": "3.15.1",
        "date saved": "2026-01-01@10:00:00",
        "model": "Sequential",
        "optimizer": "Adam",
        "layers": "2 Dense, 1 Lambda",
    }
    assert listed.notes[-2:] == [
        "it holds the code of a lambda, which Keras runs with safe_mode=False",
        "Keras imports app.layers:Gate for it",
    ]


def test_keras_archives_whose_weights_are_compressed_are_listed_in_part():
    listed = contents(keras_archive(compression=zipfile.ZIP_DEFLATED))
    assert (listed.arrays, listed.complete, listed.facts["model"]) == ({}, False, "Sequential")


def test_keras_archives_that_are_damaged_are_not_listed():
    whole = keras_archive()
    for damaged in (
        keras_archive({"config.json": b"[]"}),
        keras_archive({"metadata.json": b"{"}),
        keras_archive({"model.weights.h5": SYMBOL_TABLES[:2000]}),
        # The table of contents begins farther behind than the file is long.
        whole[:-6] + struct.pack("<I", len(whole) * 2) + whole[-2:],
        # The weights are longer than the archive.
        whole.replace(struct.pack("<2I", *[len(SYMBOL_TABLES)] * 2), struct.pack("<2I", *[len(whole) * 2] * 2)),
    ):
        with pytest.raises(CannotListError, match=r"JSON|cut off|malformed"):
            contents(damaged)


@pytest.mark.parametrize("form", ["npz", "npy", "safetensors", ".keras"])
def test_damage_anywhere_ends_in_a_list_or_in_an_error_of_its_own(form: str):
    whole = {
        "npz": npz(a=np.arange(10.0), b=np.ones(3, "i2")),
        "npy": npy(np.arange(10.0)),
        "safetensors": safetensors({"w": entry("F32", [2], 0, 8), "v": entry("U8", [3], 8, 11)}, bytes(11)),
        ".keras": keras_archive(),
    }[form]
    known = look_at(io.BytesIO(whole))
    assert known is not None
    random = np.random.default_rng(0)
    failed = 0
    for _ in range(300):
        data = bytearray(whole)
        # The tables lie at the two ends.
        for place in random.integers(-120, 120, random.integers(1, 5)):
            data[max(place, -len(data))] = random.integers(256)
        try:
            list_arrays(io.BytesIO(data), known)
        except CannotListError:
            failed += 1
    assert failed > 30
