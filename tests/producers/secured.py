"""A real Kafka that wants to know who comes: one broker with a listener for each way of asking."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from spanfold.embedded.jar_cache import fetch_jars, jar_cache
from spanfold.embedded.jars import locked_jars
from spanfold.embedded.java import find_java
from spanfold.embedded.kafka import Cluster, KafkaNode, kafka_program, new_cluster_id
from spanfold.embedded.ports import HOST, free_port
from spanfold.embedded.process_ends import ProcessHistory
from spanfold.embedded.programs import Guard
from spanfold.embedded.supervisor import Supervisor

USER, PASSWORD = "alice", 'pass "word", of=alice'
LISTENERS = ("SASL_PLAINTEXT", "SSL", "SASL_SSL")
SECURITY = "org.apache.kafka.common.security"


@dataclass(frozen=True)
class Secured:
    """Its addresses by security protocol, and who signed the certificates."""

    bootstraps: dict[str, str]
    certificates: Path

    def settings(self, protocol: str, mechanism: str = "", **changes: Any) -> dict[str, Any]:
        """How a client that is let in is set up."""
        made: dict[str, Any] = {
            "kafka_bootstrap": self.bootstraps[protocol],
            "kafka_security_protocol": protocol,
        }
        if protocol.startswith("SASL"):
            made |= {"kafka_sasl_mechanism": mechanism, "kafka_sasl_username": USER, "kafka_sasl_password": PASSWORD}
        if protocol.endswith("SSL"):
            made["kafka_ssl_cafile"] = str(self.certificates / "ca.pem")
        if protocol == "SSL":
            made["kafka_ssl_certfile"] = str(self.certificates / "client.pem")
            made["kafka_ssl_keyfile"] = str(self.certificates / "client.key")
        return made | changes


@contextmanager
def secured_kafka() -> Iterator[Secured]:
    """It is gone afterwards, with its folder. TLS without SASL wants a certificate of the client."""
    home = Path(tempfile.mkdtemp(prefix="spanfold-secured-"))
    certificates = home / "certificates"
    make_certificates(certificates)
    taken: list[int] = []
    while len(taken) < 2 + len(LISTENERS):
        taken.append(free_port(taken))
    node = KafkaNode(1, taken[0], taken[1], home / "kafka")
    places = {name: f"{HOST}:{port}" for name, port in zip(LISTENERS, taken[2:], strict=True)}
    jars = locked_jars()
    fetch_jars(jars, jar_cache())
    cluster = Cluster([node], new_cluster_id(), listeners(node, places, certificates))
    program = kafka_program(node, find_java(), [jar_cache() / jar.filename for jar in jars], home, cluster)
    guard = Guard(home / "guard.log", lambda: None, remove=[home])
    supervisor = Supervisor(home, guard, ProcessHistory(home), lambda: None)
    try:
        supervisor.start(program)
        make_user(node.bootstrap)
        yield Secured(places, certificates)
    finally:
        supervisor.stop()
        guard.release()
        shutil.rmtree(home, ignore_errors=True)


def listeners(node: KafkaNode, places: dict[str, str], certificates: Path) -> dict[str, str]:
    """What the broker's configuration has beside the plain listener, which stays the brokers' own."""
    plain = f"{SECURITY}.plain.PlainLoginModule required user_{USER}={quoted(PASSWORD)};"
    scram = f"{SECURITY}.scram.ScramLoginModule required;"
    sasl = {
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "plain.sasl.jaas.config": plain,
        "scram-sha-256.sasl.jaas.config": scram,
        "scram-sha-512.sasl.jaas.config": scram,
    }
    named = ",".join(f"{name}://{place}" for name, place in places.items())
    return {
        "listeners": f"PLAINTEXT://{node.bootstrap},CONTROLLER://{HOST}:{node.controller_port},{named}",
        "advertised.listeners": f"PLAINTEXT://{node.bootstrap},{named}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,"
        + ",".join(f"{name}:{name}" for name in places),
        **{
            f"listener.name.{each}.{key}": value
            for each in ("sasl_plaintext", "sasl_ssl")
            for key, value in sasl.items()
        },
        "listener.name.ssl.ssl.client.auth": "required",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(certificates / "broker.both"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(certificates / "ca.pem"),
    }


def quoted(text: str) -> str:
    """As a value of a JAAS configuration."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def make_user(bootstrap: str) -> None:
    """The user's SCRAM credentials, which the broker keeps itself."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
        wish = UserScramCredentialUpsertion(USER, ScramCredentialInfo(mechanism, 4096), PASSWORD.encode())
        admin.alter_user_scram_credentials([wish])[USER].result(30)


def make_certificates(folder: Path) -> None:
    """A certificate authority, and what it signed for the broker and for a client."""
    folder.mkdir()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    signed = {name: authority.issue_cert(HOST, "localhost", common_name=name) for name in ("broker", "client")}
    certificate = b"".join(each.bytes() for each in signed["broker"].cert_chain_pems)
    (folder / "broker.both").write_bytes(_pkcs8(signed["broker"]) + certificate)
    (folder / "client.key").write_bytes(_pkcs8(signed["client"]))
    signed["client"].cert_chain_pems[0].write_to_path(str(folder / "client.pem"))


def _pkcs8(signed: trustme.LeafCert) -> bytes:
    """The private key in the only PEM form that Kafka's broker reads."""
    key = load_pem_private_key(signed.private_key_pem.bytes(), None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
