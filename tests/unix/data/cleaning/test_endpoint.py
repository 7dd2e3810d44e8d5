"""Endpoints: their file, their prices, and which reports may go where."""

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from unix.data.cleaning import endpoint as module
from unix.data.cleaning.endpoint import Endpoint, Price, check_policy, is_private, load_endpoint
from unix.errors import ConfigError, PolicyError


def at(url: str | None) -> Endpoint:
    return Endpoint(name="x", model="m", base_url=url)


@pytest.mark.parametrize("name", ["embedded", "local", "deepseek"])
def test_the_package_knows_three_endpoints(name: str) -> None:
    assert load_endpoint(name).name == name
    assert load_endpoint(name).embedded is (name == "embedded")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/v1", "http://10.1.2.3/v1", "http://192.168.0.9/v1", "http://[::1]/v1"]
)
def test_credentialed_reports_may_go_to_private_addresses_alone(url: str) -> None:
    assert check_policy(at(url), ["mimic-cxr"])
    assert not check_policy(at(url), ["phantom"])


@pytest.mark.parametrize(
    "url", ["https://93.184.216.34/v1", "http://172.32.0.1/v1", "http://169.254.169.254/v1", "http://[2001:db8::1]/"]
)
def test_credentialed_reports_may_not_go_elsewhere(url: str) -> None:
    for source in ("mimic-cxr", "a-source-we-do-not-know"):
        with pytest.raises(PolicyError, match="PhysioNet"):
            check_policy(at(url), ["phantom", source])
    check_policy(at(url), ["phantom", "iu-xray"])


def test_an_acknowledged_host_is_allowed_by_its_name_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_addresses", lambda host: ())
    assert not check_policy(at("https://api.example.com/v1"), ["mimic-cxr"], ["API.example.com"])
    with pytest.raises(PolicyError, match=r"--acknowledge-host api\.example\.com"):
        check_policy(at("https://api.example.com/v1"), ["mimic-cxr"], ["example.com"])


@pytest.mark.parametrize(
    "addresses",
    [
        ("10.0.0.1", "93.184.216.34"),
        ("::1", "2001:db8::1"),
        ("::ffff:93.184.216.34",),
        ("64:ff9b::a00:1",),
        ("100.64.0.1",),
        ("0.0.0.0",),
        ("fe80::1%eth0",),
    ],
)
def test_one_address_that_is_not_private_makes_a_host_public(
    addresses: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_addresses", lambda host: addresses)
    assert not is_private("inside.example")


def test_private_addresses_are_private_in_every_notation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_addresses", lambda host: ("::ffff:10.0.0.1", "fd00::1", "172.16.9.9"))
    assert is_private("inside.example")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1@93.184.216.34/v1",
        "http://93.184.216.34\\@127.0.0.1/v1",
        "http://127.0.0.1#@93.184.216.34/v1",
        "http://127.0.0.1?@93.184.216.34/v1",
        "http://127.0.0.1\t.example.com/v1",
        "http://127.0.0.1 /v1",
        "http://127。0.0.1/v1",
        "http:///v1",
        "http+unix://127.0.0.1/v1",
        "http://127.0.0.1/v1/../../x?key=secret",
    ],
)
def test_an_address_that_parsers_read_differently_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match="host, port and path alone") as caught:
        load_endpoint("embedded", url, "m")
    assert url not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_host_that_does_not_resolve_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_addresses", lambda host: ())
    assert not is_private("nowhere.invalid")


def test_the_embedded_endpoint_is_open_to_every_source() -> None:
    check_policy(at(None), ["mimic-cxr"])


def test_a_file_beside_replaces_the_packages_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    named = tmp_path / "named.yaml"
    named.write_text("mine: {model: a, base_url: 'http://127.0.0.1:1/v1'}\n")
    monkeypatch.setenv("UNIX_ENDPOINTS", str(named))
    assert load_endpoint("mine").model == "a"
    (tmp_path / "endpoints.yaml").write_text("mine: {model: b, base_url: 'http://127.0.0.1:1/v1'}\n")
    assert load_endpoint("mine").model == "b"
    with pytest.raises(ConfigError, match="no endpoint 'yours'; it has mine"):
        load_endpoint("yours")
    assert load_endpoint("embedded").embedded


def test_an_extra_body_cannot_change_what_is_asked_of_whom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "endpoints.yaml").write_text(
        "mine: {model: a, base_url: 'http://127.0.0.1:1/v1', extra_body: {model: b, stream: true, top_p: 0.9}}\n"
    )
    with pytest.raises(ConfigError, match="model, stream cannot be set here"):
        load_endpoint("mine")


def test_a_base_url_alone_is_an_endpoint_that_needs_a_model() -> None:
    custom = load_endpoint("embedded", "http://127.0.0.1:9/v1", "m")
    assert (custom.embedded, custom.model) == (False, "m")
    with pytest.raises(ConfigError, match="--model"):
        load_endpoint("embedded", "http://127.0.0.1:9/v1")
    with pytest.raises(ConfigError, match="not an http"):
        load_endpoint("local", "ftp://host")


def test_the_address_does_not_shape_an_answer_but_the_parameters_do() -> None:
    one = at("http://127.0.0.1:1/v1")
    assert one.parameters_digest == at("http://127.0.0.1:2/v1").parameters_digest
    assert one.parameters_digest != one.model_copy(update={"temperature": 0.5}).parameters_digest


def test_prices_count_the_cache_and_the_hour() -> None:
    price = Price(as_of=date(2026, 1, 1), input=1, cached_input=0.1, output=2, peak_hours_utc=((8, 10),), peak_factor=2)
    night, day = datetime(2026, 1, 1, 7, tzinfo=UTC), datetime(2026, 1, 1, 8, tzinfo=UTC)
    assert price.cost(1_000_000, 400_000, 500_000, night) == pytest.approx(0.6 + 0.04 + 1.0)
    assert price.cost(1_000_000, 400_000, 500_000, day) == pytest.approx(2 * 1.64)


def test_a_missing_key_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEEPSEEK_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="DEEPSEEK_API_KEY"):
        load_endpoint("deepseek").api_key()
