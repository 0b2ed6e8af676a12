"""Tests of `lewm_data.hub`, and a stand-in for the Hugging Face Hub on loopback."""

from tests.hub.stand_in import READ_TOKEN as READ_TOKEN
from tests.hub.stand_in import WRITE_TOKEN as WRITE_TOKEN
from tests.hub.stand_in import StandIn as StandIn
from tests.hub.stand_in import serve as serve
from tests.hub.stand_in import wait_until as wait_until
