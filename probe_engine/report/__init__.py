"""Wire types of the result. The keys and units are interface.md's contract."""

from __future__ import annotations

from probe_engine.report.cost import (
    Cost,
    Forecast,
    Observed,
)
from probe_engine.report.estimates import (
    AdamwEstimate,
    AdamwParts,
    Baselines,
    Estimates,
    RankCorrelation,
    SplitEstimate,
    UStatistic,
    VStatistic,
    XEstimates,
)
from probe_engine.report.findings import (
    Finding,
    Number,
    Remedy,
    Status,
    finding,
)
from probe_engine.report.flow import (
    DerivativeTest,
    GradientFlow,
    IdMatch,
    MethodInfo,
    OnPolicy,
)
from probe_engine.report.realized import (
    RealizedRow,
    RealizedUnit,
    SelfInfluence,
    Sweep,
    SweepPoint,
    Verdict,
    VerdictRow,
)
from probe_engine.report.source import (
    CheckpointInfo,
    Environment,
    OptimizerInfo,
    RolloutsInfo,
    Tool,
)
from probe_engine.report.units import (
    Histogram,
    Histograms,
    Influence,
    ResponseRow,
    UnitRow,
)
from probe_engine.report.whole import (
    SCHEMA_VERSION,
    Report,
    RunInfo,
    encode,
    json_schema,
    to_json,
)

__all__ = [
    "SCHEMA_VERSION",
    "AdamwEstimate",
    "AdamwParts",
    "Baselines",
    "CheckpointInfo",
    "Cost",
    "DerivativeTest",
    "Environment",
    "Estimates",
    "Finding",
    "Forecast",
    "GradientFlow",
    "Histogram",
    "Histograms",
    "IdMatch",
    "Influence",
    "MethodInfo",
    "Number",
    "Observed",
    "OnPolicy",
    "OptimizerInfo",
    "RankCorrelation",
    "RealizedRow",
    "RealizedUnit",
    "Remedy",
    "Report",
    "ResponseRow",
    "RolloutsInfo",
    "RunInfo",
    "SelfInfluence",
    "SplitEstimate",
    "Status",
    "Sweep",
    "SweepPoint",
    "Tool",
    "UStatistic",
    "UnitRow",
    "VStatistic",
    "Verdict",
    "VerdictRow",
    "XEstimates",
    "encode",
    "finding",
    "json_schema",
    "to_json",
]
