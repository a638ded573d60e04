module slipway/tests/probe

go 1.24
