"""The settings of the gateway, through which phones outside the cluster take part."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ray_split.config.fields import LocalPath, Positive, Section


class Gateway(Section):
    """The gateway, through which phones outside the cluster take part (phones.remote)."""

    host: Annotated[str, Field(min_length=1, max_length=253)] = Field(
        "127.0.0.1", description="the address that it listens at; 0.0.0.0: all of its machine's addresses"
    )
    node: Annotated[str, Field(min_length=1, max_length=63)] | None = Field(
        None,
        description="the node that it runs on, by the value of the label ray-split/role; none: gateway, or the "
        "driver's node where no node has that label",
    )
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8484, description="its port; 0: any that is free")
    certificate: LocalPath | None = Field(
        None, description="a PEM file with the certificate for TLS, on the gateway's machine; none: no TLS"
    )
    key: LocalPath | None = Field(None, description="a PEM file with the certificate's private key")
    tokens: LocalPath | None = Field(
        None, description="the file of the devices' tokens; none: ~/.ray_split/devices.json"
    )
    timeout: Annotated[Positive, Field(le=1e6)] = Field(
        60.0, description="seconds that a device has for an answer; then it has dropped out of the round"
    )
    examples: bool = Field(
        False, description="whether a device without data of its own may have its share of the run's data"
    )
