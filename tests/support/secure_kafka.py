"""A real broker that encrypts, knows who talks to it, and allows only what it was told to allow.

Listeners: `mtls` (own certificates), `sasl` (TLS and a password), `clear` (a password in the clear). The user `admin`
may everything; the name in a certificate is the user's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    KafkaAdminClient,
    ResourcePattern,
    ResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from recupera_local import kafka, ports
from servicekit import acls, settings
from support import certificates

SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
PLAIN_USER = "plain-user"
PLAIN_PASSWORD = "plain-password"


class SecureKafka:
    """The broker in `folder`, with a CA of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = certificates.Authority(folder / "pki")
        self.admin_identity = self.authority.sign("admin")
        self.ports = dict(zip(("mtls", "sasl", "clear", "controller"), ports.free_ports(4), strict=True))
        self.server = kafka.Kafka(
            folder=folder / "kafka",
            port=self.ports["mtls"],
            controller_port=self.ports["controller"],
            log=folder / "kafka.log",
            settings=self._settings(),
        )

    def _settings(self) -> Mapping[str, str]:
        plain = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        listeners = [f"{name.upper()}://127.0.0.1:{port}" for name, port in self.ports.items()]
        mechanisms = {
            f"listener.name.{listener}.scram-sha-{size}.sasl.jaas.config": SCRAM
            for listener in ("sasl", "clear")
            for size in (256, 512)
        }
        return mechanisms | {
            "listeners": ",".join(listeners),
            "listener.security.protocol.map": "MTLS:SSL,SASL:SASL_SSL,CLEAR:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "MTLS",
            "listener.name.mtls.ssl.client.auth": "required",
            "listener.name.sasl.sasl.enabled.mechanisms": "SCRAM-SHA-256,SCRAM-SHA-512,PLAIN",
            "listener.name.clear.sasl.enabled.mechanisms": "SCRAM-SHA-256,SCRAM-SHA-512",
            "listener.name.sasl.plain.sasl.jaas.config": f'{plain} user_{PLAIN_USER}="{PLAIN_PASSWORD}";',
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.folder / "broker.pem"),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.folder / "trusted.pem"),
            "ssl.principal.mapping.rules": "RULE:^CN=([^,]+).*$/$1/",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            # The controller's own listener, on this machine only, knows nobody.
            "super.users": "User:admin;User:ANONYMOUS",
        }

    def start(self, authority: certificates.Authority | None = None) -> None:
        """Start it, with a certificate of its own CA or of another one."""
        signing = authority or self.authority
        (self.folder / "broker.pem").write_text(signing.sign("broker", "127.0.0.1").both)
        trusted = {self.authority.file.read_text(), signing.file.read_text()}
        (self.folder / "trusted.pem").write_text("".join(trusted))
        self.server.start()

    def address(self, listener: str, host: str = "127.0.0.1") -> str:
        """host:port of a listener."""
        return f"{host}:{self.ports[listener]}"

    def with_certificate(self, identity: certificates.Signed) -> settings.Brokers:
        """As who the certificate names."""
        return settings.Brokers(
            bootstrap=self.address("mtls"),
            security="SSL",
            ca_file=self.authority.file,
            certificate_file=identity.certificate,
            key_file=identity.key,
        )

    def with_password(
        self, user: str, password: str, *, mechanism: str = "SCRAM-SHA-512"
    ) -> settings.Brokers:
        """As a user, encrypted."""
        return settings.Brokers(
            bootstrap=self.address("sasl"),
            security="SASL_SSL",
            ca_file=self.authority.file,
            mechanism=mechanism,
            user=user,
            password=password,
        )

    @property
    def administrator(self) -> settings.Brokers:
        """As who may everything."""
        return self.with_certificate(self.admin_identity)

    def with_certificate_of(self, authority: certificates.Authority) -> settings.Brokers:
        """As who may everything, while the broker's own certificate is of another CA."""
        return dataclasses.replace(self.administrator, ca_file=authority.file)

    def client(self) -> KafkaAdminClient:
        """kafka-python's own, as who may everything."""
        return KafkaAdminClient(
            bootstrap_servers=self.address("mtls"),
            security_protocol="SSL",
            ssl_cafile=str(self.authority.file),
            ssl_certfile=str(self.admin_identity.certificate),
            ssl_keyfile=str(self.admin_identity.key),
        )

    def set_password(self, user: str, password: str) -> None:
        """Make or change a user who shows a password by SCRAM."""
        client = self.client()
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            answer = client.alter_user_scram_credentials(
                [UserScramCredentialUpsertion(user, mechanism, password)]
            )
            assert not any(answer.values()), answer
        client.close()

    def allow(self, user: str, rules: Iterable[acls.Rule]) -> None:
        """Let a user do what the rules say."""
        client = self.client()
        answer = client.create_acls(
            [
                ACL(
                    principal=f"User:{user}",
                    host="*",
                    operation=ACLOperation[_constant(operation)],
                    permission_type=ACLPermissionType.ALLOW,
                    resource_pattern=ResourcePattern(ResourceType[rule.kind.upper()], rule.name),
                )
                for rule in rules
                for operation in rule.operations
            ]
        )
        client.close()
        assert not answer["failed"], answer


def _constant(operation: str) -> str:
    """``DescribeConfigs`` -> ``DESCRIBE_CONFIGS``."""
    return "".join(f"_{letter}" if letter.isupper() else letter for letter in operation).upper().lstrip("_")


def environment(brokers: settings.Brokers) -> dict[str, str]:
    """The variables from which a process reads the same."""
    told = {
        "": brokers.bootstrap,
        "_SECURITY": brokers.security,
        "_CA_FILE": brokers.ca_file,
        "_CERTIFICATE_FILE": brokers.certificate_file,
        "_KEY_FILE": brokers.key_file,
        "_MECHANISM": brokers.mechanism,
        "_USER": brokers.user,
        "_PASSWORD": brokers.password,
        "_PASSWORD_FILE": brokers.password_file,
    }
    return {f"RECUPERA_KAFKA{name}": str(value) for name, value in told.items() if value is not None}
