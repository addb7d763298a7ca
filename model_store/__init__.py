"""The pantry: versioned models, the only thing that training and service share."""

from model_store.card import (
    CARD_SCHEMA,
    Corruption,
    Metric,
    ModelCard,
    Precision,
    Task,
    Tensor,
    TrainingData,
    Variant,
)
from model_store.errors import (
    CorruptModelError,
    InvalidNameError,
    ModelNotFoundError,
    ModelUnavailableError,
    StoreError,
    VersionExistsError,
)
from model_store.markdown import card_markdown, markdown_table
from model_store.providers import CUDA, CUDA_PROVIDERS, OPENVINO, Provider, cpu_providers
from model_store.store import ModelStore, StoredModel, default_root, model_file, parse_reference

__all__ = [
    "CARD_SCHEMA",
    "CUDA",
    "CUDA_PROVIDERS",
    "OPENVINO",
    "CorruptModelError",
    "Corruption",
    "InvalidNameError",
    "Metric",
    "ModelCard",
    "ModelNotFoundError",
    "ModelStore",
    "ModelUnavailableError",
    "Precision",
    "Provider",
    "StoreError",
    "StoredModel",
    "Task",
    "Tensor",
    "TrainingData",
    "Variant",
    "VersionExistsError",
    "card_markdown",
    "cpu_providers",
    "default_root",
    "markdown_table",
    "model_file",
    "parse_reference",
]
