"""What a planned training runs on: the phone, the server and the link between them, as numbers."""

from __future__ import annotations

from pydantic import Field

from ray_split.config.fields import NotNegative, Positive, Section


class Phone(Section):
    """The phone."""

    gflops: Positive = Field(10.0, description="billion FLOPs that the phone computes in a second, in training")
    memory_mb: Positive = Field(1000.0, description="million bytes that training may take")


class Server(Section):
    """The server, as one phone has it."""

    gflops: Positive = Field(
        1000.0, description="billion FLOPs that the server computes in a second for one phone, in training"
    )


class Link(Section):
    """Between phone and server."""

    up_mbps: Positive = Field(20.0, description="million bits a second from the phone")
    down_mbps: Positive = Field(50.0, description="million bits a second to the phone")
    latency_ms: NotNegative = Field(20.0, description="milliseconds that are added to each message")


class Profile(Section):
    """All of it."""

    phone: Phone = Phone()
    server: Server = Server()
    link: Link = Link()
