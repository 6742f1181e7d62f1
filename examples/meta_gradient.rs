//! One exact meta-gradient: how the loss after adapting to an episode depends on the weights before.

use metaglot::cpu::Cpu;
use metaglot::meta::{BatchTargets, EpisodeSet, GramSpace, InnerLoop, Inputs};
use metaglot::meta::{Limits, MetaBatch, MetaGradient, Order};
use metaglot::model::{InputKind, MlpShape, Params};
use metaglot::{Bags, Result};

fn main() -> Result<()> {
    // Two support texts and one query text, as bags of two tokens each out of a vocabulary of a million.
    let shape = MlpShape { input: 1_000_000, kind: InputKind::Bag, widths: vec![16, 2] };
    let params = Params::<f32>::random(&shape, 0.1, 1)?;
    let set = |tokens, offsets, rows, labels| -> Result<_> {
        let inputs = Inputs::Bags(Bags::new(tokens, &[0.7f32; 4][..tokens.len()], offsets, shape.input)?);
        Ok(EpisodeSet { inputs, rows, targets: BatchTargets::Classes(labels) })
    };
    let support = set(&[3, 999_999, 5, 70_000], &[0, 2, 4], &[0, 2], &[0, 1])?;
    let batch = MetaBatch { support, query: set(&[3, 70_000], &[0, 2], &[0, 1], &[0])? };

    let inner = InnerLoop::sgd(5, 0.5, Order::Second);
    let limits = Limits::of(&batch, &inner);
    let mut gradient = MetaGradient::new(&shape, &limits);
    GramSpace::new(&Cpu::new(), &shape, limits)?.run(&params, &batch, &inner, &mut gradient)?;
    println!("query loss {:.3}; rows of the table with a gradient: {:?}", gradient.meta_loss(), gradient.rows);
    Ok(())
}
