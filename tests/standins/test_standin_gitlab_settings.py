"""The configuration that gitlab.rb's settings lead to, by version."""

import json

import pytest

from provision_lab.standins.gitlab_ce.host import configs
from provision_lab.standins.gitlab_ce.host.removed import deprecations, removals
from provision_lab.standins.gitlab_ce.host.settings import (
    MONITORING,
    ConfigurationError,
    derive,
    locale_warnings,
    moved_nginx,
)

OLD, TODAY = (18, 0, 0), (19, 3, 0)
URL = {"external_url": "https://gitlab.example.com"}
WITH_REGISTRY = URL | {"registry_external_url": "https://gitlab.example.com:5555"}


def test_the_registry_listens_on_its_url_s_port_with_the_default_certificate():
    """Port from the URL, certificate by the URL's host."""
    site = derive(WITH_REGISTRY, TODAY).registry.site
    assert (site.port, site.certificate, site.key) == (
        5555,
        "/etc/gitlab/ssl/gitlab.example.com.crt",
        "/etc/gitlab/ssl/gitlab.example.com.key",
    )


def test_an_ipv6_address_keeps_its_brackets():
    """As Ruby's URI has them; nginx listens on IPv4 only, unless it is configured otherwise."""
    settings = {"external_url": "https://[2001:db8::1]", "registry_external_url": "https://[2001:db8::1]:5555"}
    site = derive(settings, TODAY).registry.site
    assert (site.host, site.port, site.listen) == ("[2001:db8::1]", 5555, ("*",))
    assert site.certificate == "/etc/gitlab/ssl/[2001:db8::1].crt"
    listening = settings | {"registry": {"nginx": {"listen_addresses": ["*", "[::]"]}}}
    assert "listen [::]:5555 ssl;" in configs.render_nginx(derive(listening, TODAY))


@pytest.mark.parametrize(("version", "certificate"), [(OLD, "/old"), ((19, 1, 9), "/old"), ((19, 2, 0), "/new")])
def test_the_new_form_wins_from_19_2_and_is_ignored_before(version, certificate):
    """`registry['nginx']` over `registry_nginx`, key by key."""
    settings = WITH_REGISTRY | {
        "registry_nginx": {"ssl_certificate": "/old", "ssl_certificate_key": "/old.key"},
        "registry": {"nginx": {"ssl_certificate": "/new"}},
    }
    site = derive(settings, version).registry.site
    assert (site.certificate, site.key) == (certificate, "/old.key")


@pytest.mark.parametrize(("version", "certificate"), [(OLD, "/old"), (TODAY, "/new")])
def test_the_application_s_certificate_moved_likewise(version, certificate):
    """`gitlab_rails['nginx']` over `nginx`."""
    settings = URL | {
        "nginx": {"ssl_certificate": "/old"},
        "gitlab_rails": {"nginx": {"ssl_certificate": "/new"}},
    }
    assert derive(settings, version).external.certificate == certificate


@pytest.mark.parametrize("settings", [URL, WITH_REGISTRY | {"registry": {"enable": False}}])
def test_no_registry(settings):
    """Without its URL, or switched off, there is none."""
    assert derive(settings, TODAY).registry is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "GitLab external URL must include a schema and FQDN"),
        ({"external_url": "gitlab.example.com"}, "GitLab external URL must include a schema and FQDN"),
        ({"external_url": "ftp://gitlab.example.com"}, "Unsupported external URL scheme: ftp"),
        (
            URL | {"registry_external_url": "gitlab.example.com:5555"},
            "GitLab Container Registry external URL must include a schema and FQDN",
        ),
        (
            URL | {"registry_external_url": "https://gitlab.example.com/registry"},
            "Unsupported GitLab Registry external URL path: /registry",
        ),
    ],
)
def test_urls_that_are_refused(settings, message):
    """The URL needs a scheme, and the registry's no path."""
    with pytest.raises(ConfigurationError, match=f"^{message}"):
        derive(settings, TODAY)


def test_front_end_configuration():
    """One TLS server for the application, one for the registry, and the requested redirect."""
    settings = WITH_REGISTRY | {"nginx": {"redirect_http_to_https": True, "listen_addresses": ["*", "127.0.0.1"]}}
    text = configs.render_nginx(derive(settings, TODAY))
    assert text.count("listen *:443 ssl;") == text.count("listen 127.0.0.1:443 ssl;") == 1
    assert text.count("listen *:5555 ssl;") == text.count("listen *:80;") == 1
    assert 'ssl_certificate "/etc/gitlab/ssl/gitlab.example.com.crt";' in text


def test_plain_http():
    """An http URL listens without TLS and names no certificate."""
    text = configs.render_nginx(derive({"external_url": "http://gitlab.example.com"}, TODAY))
    assert "listen *:80;" in text
    assert "ssl_certificate" not in text


SAID = {"realm": "https://gitlab.example.com", "secret": "s", "bundle": "/c.crt", "issuer": "omnibus-gitlab-issuer"}


def storage_in(text):
    """The storage line of a registry's configuration, as a value."""
    line = next(line for line in text.splitlines() if line.startswith("storage: "))
    return json.loads(line.removeprefix("storage: "))


def registry_with(storage, **more):
    """A registry with this storage in gitlab.rb."""
    return derive(WITH_REGISTRY | {"registry": {"storage": storage, **more}}, TODAY).registry


def test_storage_is_written_verbatim_with_omnibus_s_own_keys():
    """Nothing is validated or renamed; cache and delete are added where unset."""
    storage = {"s3_v2": {"bucket": "b", "pathstyle": True, "typo": 1}, "redirect": {"disable": True}}
    assert storage_in(configs.render_registry(registry_with(storage), **SAID)) == {
        **storage,
        "cache": {"blobdescriptor": "inmemory"},
        "delete": {"enabled": True},
    }


def test_own_cache_and_delete_stay():
    """The values of gitlab.rb are kept."""
    storage = {
        "filesystem": {"rootdirectory": "/r"},
        "cache": {"blobdescriptor": "redis"},
        "delete": {"enabled": False},
    }
    assert storage_in(configs.render_registry(registry_with(storage), **SAID)) == storage


def test_without_storage_it_is_a_folder():
    """The default is GitLab's shared folder."""
    seen = storage_in(configs.render_registry(derive(WITH_REGISTRY, TODAY).registry, **SAID))
    assert seen["filesystem"] == {"rootdirectory": "/var/opt/gitlab/gitlab-rails/shared/registry"}


@pytest.mark.parametrize("name", ["s3", "s3aws", "s3_v2"])
def test_every_name_of_the_s3_driver_runs(name):
    """They are aliases; distribution 2.8 has only one name."""
    storage = {name: {"bucket": "b", "regionendpoint": "https://s3.example.com"}}
    text = configs.render_registry_to_run(registry_with(storage), TODAY, **SAID)
    assert storage_in(text)["s3"] == storage[name]


@pytest.mark.parametrize(("version", "endpoint"), [(OLD, "s3.example.com"), (TODAY, configs.NOWHERE)])
def test_an_endpoint_without_a_scheme_is_not_reached_from_19_0(version, endpoint):
    """Before, the older driver added the scheme."""
    storage = {"s3": {"bucket": "b", "regionendpoint": "s3.example.com"}}
    text = configs.render_registry_to_run(registry_with(storage), version, **SAID)
    assert storage_in(text)["s3"]["regionendpoint"] == endpoint
    assert storage_in(configs.render_registry(registry_with(storage), **SAID))["s3"] == storage["s3"]


def test_auth_points_to_the_external_url():
    """Clients are redirected to `<external_url>/jwt/auth` for service container_registry."""
    text = configs.render_registry(registry_with({"filesystem": {}}), **SAID)
    assert "realm: https://gitlab.example.com/jwt/auth\n    service: container_registry\n" in text


@pytest.mark.parametrize(
    ("settings", "version", "names"),
    [
        ({"git_data_dirs": {"default": {"path": "/x"}}}, OLD, ["git_data_dirs"]),
        ({"git_data_dirs": {}}, OLD, []),
        ({"unicorn": {"enable": False, "a": 1, "b": 2}}, OLD, ["unicorn['a']", "unicorn['b']"]),
        ({"unicorn": {"enable": True}}, OLD, ["unicorn[enable]"]),
        ({"unicorn": {"enable": True, "a": 1}}, (18, 1, 0), []),
        ({"nginx": {"gzip": "on"}}, OLD, ["nginx['gzip']"]),
        ({"nginx": {"gzip": "on"}}, TODAY, []),
        ({"gitlab_shell": {"migration": {"x": 1}, "log_level": "INFO"}}, TODAY, ["gitlab_shell['migration']"]),
        ({"spamcheck": {"enable": False}}, TODAY, ["spamcheck"]),
        ({"mattermost": {"enable": True}}, OLD, []),
        ({"mattermost": {"home": "/m"}}, (19, 2, 4), ["mattermost"]),
        ({"mattermost": {"enable": False, "home": "/m"}}, TODAY, []),
        ({"mattermost": {"enable": True}}, TODAY, ["mattermost"]),
        ({"mattermost_external_url": "https://m"}, TODAY, []),
        (
            {"gitaly": {"configuration": {"git": {"bin_path": "/usr/bin/git"}}}},
            TODAY,
            ["gitaly['configuration']['git']['bin_path']"],
        ),
        (WITH_REGISTRY, TODAY, []),
    ],
)
def test_removed_settings(settings, version, names):
    """Each refused setting has its line: omnibus-gitlab's deprecations.rb at the tags 18.0.0 to 19.3.0."""
    lines = list(removals(settings, version))
    assert [line.split()[1] for line in lines] == names
    assert all(" has been deprecated since " in line and " was removed in " in line for line in lines)


def test_a_package_knows_what_the_next_release_removes():
    """check-config of the installed package is asked about the incoming release: preinst.erb, config_check."""
    settings = {"spamcheck": {"enable": False}, "mattermost": {"enable": True}}
    assert list(removals(settings, (18, 11, 5))) == []
    lines = list(removals(settings, (18, 11, 5), (19, 0)))
    assert [line.split()[1] for line in lines] == ["spamcheck", "mattermost"]


def test_what_a_later_release_removes():
    """A deprecation: deprecations.rb, type :deprecation."""
    (line,) = deprecations({"mattermost_external_url": "https://m"}, TODAY)
    assert line == "* mattermost_external_url has been deprecated since 19.0 and will be removed in 20.0."


@pytest.mark.parametrize(("version", "count"), [((19, 1, 0), 0), ((19, 2, 0), 2), (TODAY, 2)])
def test_the_old_forms_of_nginx_are_deprecated_from_19_2(version, count):
    """They still work: gitlab_rails.rb, translate_client_settings; nginx.rb."""
    lines = list(
        moved_nginx({"nginx": {"ssl_ciphers": "x", "gzip_enabled": True}, "registry_nginx": {"x": 1}}, version)
    )
    assert (
        lines
        == [
            "nginx['ssl_ciphers'] has been deprecated. Please use gitlab_rails['nginx']['ssl_ciphers'] instead.",
            "registry_nginx has been deprecated. Please use registry['nginx'] instead.",
        ][:count]
    )


@pytest.mark.parametrize(
    ("environment", "names"),
    [
        ({}, []),
        ({"LANG": "C"}, ["LANG"]),
        ({"LANG": "en_US.UTF-8"}, []),
        ({"LANG": "C", "LC_ALL": "C.utf8"}, []),
        ({"LANG": "C.UTF-8", "LC_ALL": "POSIX"}, ["LC_ALL"]),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, ["LANG"]),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8", "LC_COLLATE": "C"}, ["LC_COLLATE"]),
    ],
)
def test_the_check_of_the_locale(environment, names):
    """It warns: omnibus_helper.rb, check_locale."""
    lines = list(locale_warnings(environment))
    assert [line.split()[2] for line in lines] == names
    assert all("specifies a non-UTF-8 locale. GitLab requires UTF-8 encoding" in line for line in lines)


def test_the_services():
    """16 with nginx, puma and registry: the default group in package/libraries/config/services.rb."""
    every = derive(WITH_REGISTRY, TODAY).services
    assert len(every) == 13
    assert {"gitaly", "postgresql", "redis", "sidekiq", "gitlab-workhorse", *MONITORING} <= set(every)
    few = derive(URL | {"prometheus_monitoring": {"enable": False}, "gitlab_kas": {"enable": False}}, TODAY).services
    assert set(every) - set(few) == {*MONITORING, "gitlab-kas"}


@pytest.mark.parametrize(
    ("tables", "more"),
    [
        ({"letsencrypt": {"enable": True}}, {"crond"}),
        ({"letsencrypt": {"enable": True, "auto_renew": False}}, set()),
        ({"gitlab_rails": {"database_reindexing": {"enable": True}}}, {"crond"}),
        ({"gitlab_rails": {"incoming_email_enabled": True}}, {"mailroom"}),
        ({"gitlab_rails": {"incoming_email_enabled": True}, "mailroom": {"enable": False}}, set()),
        ({"pages_external_url": "https://pages.example.com"}, {"gitlab-pages"}),
    ],
)
def test_services_that_settings_add(tables, more):
    """gitlab/recipes/default.rb for crond; incoming_email.rb and gitlab_pages.rb for the others."""
    assert set(derive(WITH_REGISTRY | tables, TODAY).services) - set(derive(WITH_REGISTRY, TODAY).services) == more


@pytest.mark.parametrize(("password", "valid"), [("12345678", True), ("1234567", False)])
def test_root_s_first_password_has_eight_characters(password, valid, monkeypatch):
    """gitlab_rails.rb, validate_secrets; the environment's wins, transform_secrets."""
    settings = URL | {"gitlab_rails": {"initial_root_password": password}}
    if valid:
        assert derive(settings, TODAY).root_password == password
    else:
        with pytest.raises(ConfigurationError, match="Length is too short, minimum is 8 characters"):
            derive(settings, TODAY)
    monkeypatch.setenv("GITLAB_ROOT_PASSWORD", "of the environment")
    assert derive(settings, TODAY).root_password == "of the environment"
