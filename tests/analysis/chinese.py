"""A text of the project's own: varied Chinese sentences about work, the same at every call."""

import random


def _split(text: str) -> list[str]:
    return text.split()


_SUBJECTS = _split(
    """
    财务部 人力资源部 产研中心 法务合规组 张伟明经理 欧阳雪琴 深圳分公司 新入职的实习生 数据平台团队
    客户成功部 采购委员会 值班工程师 赵钱孙博士 海外事业部 信息安全办公室 仓库管理员 内审小组 供应商
    """
)
_ACTIONS = _split(
    """
    提交了 审核过 正在修订 昨天驳回了 打算下周公布 已经归档 反复讨论 临时撤回 负责解释 建议取消
    没有收到 终于批准了 忘记填写 要求补充 公开征求意见后通过了 委托第三方评估
    """
)
_OBJECTS = _split(
    """
    差旅费报销标准 年度绩效考核办法 云服务器扩容方案 员工手册第三版 石墨烯散热膜的检测报告 固定资产盘点清单
    竞业限制协议 跨境数据传输评估 食堂招标文件 灰度发布流程 消防演练计划 碳中和路线图 住房公积金缴存基数
    知识产权归属条款 双因素认证手册 病假工资计算规则
    """
)
_ENDINGS = _split(
    """
    因为预算超支了 所以大家不太满意 希望月底之前落实 但是流程仍然繁琐 请各部门认真执行
    以便总经理办公会研究决定 否则不予受理 目前进展顺利 具体细则另行通知 其中三分之二来自华东地区
    并抄送董事会秘书 这件事情说来话长 由工会代表监督 乒乓球拍卖完了 南京市长江大桥附近堵车
    """
)
_PHRASES = _split(
    """
    中华人民共和国劳动合同法 结婚的和尚未结婚的 小明硕士毕业于中国科学院计算所 他来到了网易杭研大厦
    研究生命的起源 下雨天留客天留我不留 这个门把手坏了 工信处女干事每月经过下属科室
    山脚下的村民常年守着那片茶园 买水果然后来世博园 长春市长春节致辞 我不喜欢日本和服 发展中国家的兔子
    化妆和服装 北京大学生前来应聘 雷猴回归人间 永和服装饰品有限公司 一次性生活补助 武汉市长江二桥
    无线电法国别研究 可口的饭菜 邓颖超生前使用过的物品
    """
)


def sentences(count: int = 400) -> list[str]:
    choose = random.Random(20260101)
    made = [
        "".join(choose.choice(part) for part in (_SUBJECTS, _ACTIONS, _OBJECTS, _ENDINGS))
        for _ in range(count - len(_PHRASES))
    ]
    return [*_PHRASES, *made]
