<?php

namespace App\Models;

class PricingPlan extends CompanyRecord
{
}
