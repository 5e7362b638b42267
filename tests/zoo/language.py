"""Small language models of transformers, from configuration, with random weights."""

from typing import Any

import torch
import transformers as hf

from tests.zoo.network import SAMPLES, Network, floats, sentences, tokens

_SMALL = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
_BERT = {**_SMALL, "intermediate_size": 24, "max_position_embeddings": 32}
_GPT = {"vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
_MIXTURE = {"num_experts_per_tok": 2, "experts_implementation": "eager"}  # the other takes no double precision
_LLAMA = {**_BERT, "num_key_value_heads": 2, "pad_token_id": 0}


def _of(model: str, config: str, *, batches: Any = None, remark: str = "", **options: Any) -> Any:
    def build() -> Network:
        made = getattr(hf, model)(getattr(hf, config)(**options))
        return Network(made, batches() if batches is not None else sentences(), remark=remark)

    return build


def _pairs(**more: Any) -> Any:
    """Return sentences for an encoder and, of another length, for a decoder."""
    return lambda: [{"input_ids": a, "decoder_input_ids": b, **more} for a, b in zip(tokens(7), tokens(5), strict=True)]


LANGUAGE = {
    "BERT classifier": _of("BertForSequenceClassification", "BertConfig", **_BERT),
    "BERT masked, tied": _of("BertForMaskedLM", "BertConfig", **_BERT),
    "RoBERTa": _of("RobertaForMaskedLM", "RobertaConfig", **_BERT),
    "DistilBERT": _of(
        "DistilBertForSequenceClassification", "DistilBertConfig", vocab_size=50, dim=16, n_layers=2, n_heads=2,
        hidden_dim=24,
    ),
    "ALBERT, layers shared": _of("AlbertForMaskedLM", "AlbertConfig", embedding_size=8, **_BERT),
    "DeBERTa v2": _of(
        "DebertaV2Model", "DebertaV2Config", relative_attention=True, pos_att_type=["c2p", "p2c"], **_BERT
    ),
    "ELECTRA": _of("ElectraForPreTraining", "ElectraConfig", embedding_size=8, **_BERT),
    "GPT-2": _of("GPT2LMHeadModel", "GPT2Config", **_GPT),
    "GPT-2 without a head": _of("GPT2Model", "GPT2Config", **_GPT),
    "GPT-NeoX": _of("GPTNeoXForCausalLM", "GPTNeoXConfig", **_BERT),
    "Llama": _of("LlamaForCausalLM", "LlamaConfig", **_LLAMA),
    "Mistral": _of("MistralForCausalLM", "MistralConfig", **_LLAMA),
    "Qwen 2": _of("Qwen2ForCausalLM", "Qwen2Config", **_LLAMA),
    "Gemma": _of("GemmaForCausalLM", "GemmaConfig", head_dim=8, **_LLAMA),
    "Phi": _of("PhiForCausalLM", "PhiConfig", **_LLAMA),
    "OPT": _of(
        "OPTForCausalLM", "OPTConfig", vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        ffn_dim=24, max_position_embeddings=32, word_embed_proj_dim=16,
    ),
    "BLOOM": _of("BloomForCausalLM", "BloomConfig", vocab_size=50, hidden_size=16, n_layer=2, n_head=2),
    "Mixtral": _of("MixtralForCausalLM", "MixtralConfig", num_local_experts=3, **_MIXTURE, **_LLAMA),
    "Qwen 2 MoE": _of(
        "Qwen2MoeForCausalLM", "Qwen2MoeConfig", num_experts=3, moe_intermediate_size=12,
        shared_expert_intermediate_size=12, **_MIXTURE, **_LLAMA,
    ),
    "T5": _of(
        "T5ForConditionalGeneration", "T5Config", batches=_pairs(), vocab_size=50, d_model=16, d_ff=24, d_kv=8,
        num_layers=2, num_heads=2,
    ),
    "BART": _of(
        "BartForConditionalGeneration", "BartConfig", batches=_pairs(), vocab_size=50, d_model=16, encoder_layers=2,
        decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24,
        max_position_embeddings=32,
    ),
    "XLNet": _of("XLNetModel", "XLNetConfig", vocab_size=50, d_model=16, n_layer=2, n_head=2, d_inner=24),
    "Mamba": _of("MambaForCausalLM", "MambaConfig", vocab_size=50, hidden_size=16, num_hidden_layers=2, state_size=4),
    "GPT-OSS": _of(
        "GptOssForCausalLM", "GptOssConfig", num_local_experts=3, head_dim=8, intermediate_size=24,
        num_key_value_heads=2, **_MIXTURE, **_SMALL,
    ),
    "Longformer": _of(
        "LongformerForSequenceClassification", "LongformerConfig", attention_window=[4, 4],
        batches=lambda: sentences(8), **_BERT,
    ),
    "FNet": _of(
        "FNetForSequenceClassification", "FNetConfig", vocab_size=50, hidden_size=16, num_hidden_layers=2,
        intermediate_size=24, max_position_embeddings=32,
    ),
    "RWKV": _of("RwkvForCausalLM", "RwkvConfig", vocab_size=50, hidden_size=16, num_hidden_layers=2, context_length=32),
    "Perceiver": _of(
        "PerceiverModel", "PerceiverConfig", batches=lambda: [{"inputs": x} for x in floats(9, 12)], d_model=12,
        num_latents=4, d_latents=16, num_blocks=1, num_self_attends_per_block=2, num_self_attention_heads=2,
        num_cross_attention_heads=2,
    ),
    "Time series transformer": _of(
        "PatchTSTForRegression", "PatchTSTConfig",
        batches=lambda: [{"past_values": x} for x in floats(32, 3)], num_input_channels=3, context_length=32,
        patch_length=8, patch_stride=8, d_model=16, num_hidden_layers=2, num_attention_heads=2, ffn_dim=24,
    ),
}  # fmt: skip


def adapters() -> Network:
    """BERT with LoRA adapters, by peft."""
    import peft

    base = hf.BertForSequenceClassification(hf.BertConfig(**_BERT))
    model = peft.get_peft_model(base, peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"]))
    with torch.no_grad():  # the second half of an adapter begins as zeros, which reach nothing
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    return Network(model, sentences())


LANGUAGE["BERT with LoRA"] = adapters
assert SAMPLES not in (5, 7)
